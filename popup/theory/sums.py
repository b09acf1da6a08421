"""The subset sums of a block of rows: for each row and unit of the layer below one, over the edges that S_ER left.

Sums may be carried: what one leaves is added to the goal of the row's next, so that they are off together by no more than one
of them. Otherwise what is too small for an edge is lost everywhere, with the same sign where inputs are alike, as pixels are.
(Of 784-500-10 on MNIST nine in ten weights are below 0.01: at that tolerance carrying takes the error of hidden neurons from 0.19
to 0.03, and the ticket's accuracy from 0.84 points below the target's to 0.08.)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from popup.theory.copies import Copies
from popup.theory.subset_sum import MOST_CANDIDATES, Subsets, few_edges


@dataclass(frozen=True)
class Sums:
    """What was found for each row and unit, [rows, units]: sum - goal, candidates there were, edges chosen."""

    error: np.ndarray
    candidates: np.ndarray
    edges: np.ndarray


def solve(weights: np.ndarray, below: Copies, columns: list[np.ndarray], rows: np.ndarray, goals: np.ndarray,
          tolerance: float, threads: int, carried: bool = False) -> tuple[np.ndarray, Sums]:
    """One subset sum for each of `rows` and each unit of the layer below, whose copies are `columns`. Returns bool like
    `weights`, and the sums.

    `carried`: of half the tolerance either way is for the sum and half for what the one before it left.
    """
    chosen = np.zeros(weights.shape, dtype=bool)
    sums = Sums(-goals, np.zeros(goals.shape, dtype=np.int16), np.zeros(goals.shape, dtype=np.int16))

    def solve_unit(unit: int, part: np.ndarray, wanted: np.ndarray, within: float) -> np.ndarray:
        """Those of `part`, places among `rows`; returns how much less than `wanted` they are."""
        own = columns[unit]
        whole = len(part) == len(weights)
        values = weights[:, own] if whole else weights[np.ix_(rows[part], own)]  # [rows, copies of the unit]
        sums.candidates[part, unit] = np.minimum((values != 0).sum(1), MOST_CANDIDATES)
        needed, left = np.flatnonzero(np.abs(wanted) > within), wanted.copy()  # of the others no edge is kept
        found = fit(values[needed] * below.multiple[own], wanted[needed], within)
        where, place = np.nonzero(found.chosen)
        chosen[rows[part[needed[where]]], own[place]] = True
        left[needed] = -found.error
        sums.error[part, unit], sums.edges[part[needed], unit] = (wanted - goals[part, unit]) - left, found.chosen.sum(1)
        return left

    def solve_rows(part: np.ndarray) -> None:
        left = np.zeros(len(part))
        for unit in range(goals.shape[1]):
            left = solve_unit(unit, part, goals[part, unit] + left, tolerance / 2).clip(-tolerance / 2, tolerance / 2)

    places = np.arange(len(rows))
    with ThreadPoolExecutor(threads) as pool:
        if carried:
            list(pool.map(solve_rows, np.array_split(places, threads)))
        else:
            list(pool.map(lambda unit: solve_unit(unit, places, goals[:, unit], tolerance), range(goals.shape[1])))
    return chosen, sums


def fit(values: np.ndarray, goals: np.ndarray, tolerance: float) -> Subsets:
    """The subset sum of each row of `values` [rows, copies], 0 where there is no edge. Where there are more candidates than
    are searched over, those of the most exact copies are tried first, then the largest, then those of the other copies."""
    best = Subsets(np.zeros(values.shape, dtype=bool), np.full(len(values), np.inf))
    totals = (values != 0).sum(1)
    for rank in (lambda part: part == 0, lambda part: -np.abs(part),
                 lambda part: np.where(part == 0, np.inf, -np.arange(part.shape[1]))):
        tried = np.isfinite(best.error)
        rows = np.flatnonzero(~tried | ((np.abs(best.error) > tolerance) & (totals > MOST_CANDIDATES)))
        if not len(rows):
            break
        order = np.argsort(rank(values[rows]), axis=1, kind="stable")[:, :MOST_CANDIDATES]
        counts = np.minimum(totals[rows], MOST_CANDIDATES)
        found = few_edges(np.take_along_axis(values[rows], order, axis=1), counts, goals[rows], tolerance)
        better = np.abs(found.error) < np.abs(best.error[rows])
        best.error[rows[better]] = found.error[better]
        best.chosen[rows[better]] = False
        where, place = np.nonzero(found.chosen & better[:, None])
        best.chosen[rows[where], order[where, place]] = True
    return best

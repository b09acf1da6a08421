"""The subset sums of a block of rows: for each row and unit of the layer below one, over the edges that S_ER left."""

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
          tolerance: float, threads: int) -> tuple[np.ndarray, Sums]:
    """One subset sum for each of `rows` and each unit of the layer below, whose copies are `columns`. Returns bool like
    `weights`, and the sums."""
    chosen = np.zeros(weights.shape, dtype=bool)
    sums = Sums(-goals, np.zeros(goals.shape, dtype=np.int16), np.zeros(goals.shape, dtype=np.int16))

    def solve_unit(unit: int) -> None:
        own = columns[unit]
        values = weights[:, own] if len(rows) == len(weights) else weights[np.ix_(rows, own)]  # [rows, copies of the unit]
        sums.candidates[:, unit] = np.minimum((values != 0).sum(1), MOST_CANDIDATES)
        needed = np.flatnonzero(np.abs(goals[:, unit]) > tolerance)  # of the others no edge is kept
        found = fit(values[needed] * below.multiple[own], goals[needed, unit], tolerance)
        where, place = np.nonzero(found.chosen)
        chosen[rows[needed[where]], own[place]] = True
        sums.error[needed, unit], sums.edges[needed, unit] = found.error, found.chosen.sum(1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(solve_unit, range(goals.shape[1])))
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

"""The subset sums of a block of rows: for each row and unit of the layer below one, over the edges that S_ER left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from popup.theory.copies import NONE, Copies
from popup.theory.subset_sum import MOST_CANDIDATES, Subsets, few_edges
from popup.theory.thinning import LEFT


@dataclass(frozen=True)
class Sums:
    """What was found for each row and unit, [rows, units]: sum - goal, candidates there were (NONE: no edge was needed), edges
    chosen."""

    error: np.ndarray
    candidates: np.ndarray
    edges: np.ndarray


def solve(weights: np.ndarray, below: Copies, columns: list[np.ndarray], rows: np.ndarray, goals: np.ndarray,
          tolerance: float, threads: int, thinned: np.ndarray | None = None) -> tuple[np.ndarray, Sums]:
    """One subset sum for each of `rows` and each unit of the layer below, whose copies are `columns`. Returns bool like
    `weights`, and the sums.

    `thinned`: goals in their place, as thin() makes them of the same tolerance. What one of these sums leaves is carried to
    the row's next.
    """
    chosen = np.zeros(weights.shape, dtype=bool)
    sums = Sums(-goals, np.full(goals.shape, NONE, dtype=np.int16), np.zeros(goals.shape, dtype=np.int16))

    def solve_unit(unit: int, needed: np.ndarray, wanted: np.ndarray, within: float) -> np.ndarray:
        """Those of `needed`, places among `rows`; returns their sums - `wanted`."""
        own = columns[unit]
        values = weights[np.ix_(rows[needed], own)]  # [needed, copies of the unit]
        found = fit(values * below.multiple[own], wanted, within)
        sums.candidates[needed, unit] = np.minimum((values != 0).sum(1), MOST_CANDIDATES)
        where, place = np.nonzero(found.chosen)
        chosen[rows[needed[where]], own[place]] = True
        sums.error[needed, unit] = (wanted - goals[needed, unit]) + found.error
        sums.edges[needed, unit] = found.chosen.sum(1)
        return found.error

    def solve_alone(unit: int) -> None:
        needed = np.flatnonzero(np.abs(goals[:, unit]) > tolerance)  # of the others no edge is kept
        solve_unit(unit, needed, goals[needed, unit], tolerance)

    def solve_along(part: np.ndarray) -> None:
        left, most = np.zeros(len(goals)), LEFT * tolerance
        for unit in range(goals.shape[1]):
            needed = part[thinned[part, unit] != 0]
            left[needed] = -solve_unit(unit, needed, thinned[needed, unit] + left[needed], most).clip(-most, most)

    with ThreadPoolExecutor(threads) as pool:
        if thinned is None:
            list(pool.map(solve_alone, range(goals.shape[1])))
        else:
            list(pool.map(solve_along, np.array_split(np.arange(len(rows)), threads)))
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

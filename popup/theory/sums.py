"""The subset sums of a block of rows: for each row and unit of the layer below one, over the edges that S_ER left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from popup.theory.copies import NONE, Copies
from popup.theory.subset_sum import MOST_CANDIDATES, Subsets, few_edges
from popup.theory.thinning import LEFT

LANES = 8  # units whose sums are looked for together, as calls take as long as a hundred sums


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

    def solve_some(units: np.ndarray, needed: list[np.ndarray], wanted: list[np.ndarray], within: float) -> list[np.ndarray]:
        """Those of `needed`, places among `rows` for each of `units`; returns their sums - `wanted`."""
        own, counts = [columns[unit] for unit in units], [len(places) for places in needed]
        values = np.zeros((sum(counts), max(map(len, own))))  # [needed, copies of the unit]
        ends = np.cumsum(counts)
        for places, of, end in zip(needed, own, ends, strict=True):
            values[end - len(places):end, :len(of)] = weights[np.ix_(rows[places], of)]
            values[end - len(places):end, :len(of)] *= below.multiple[of]
        found = fit(values, np.concatenate(wanted), within)
        errors = np.split(found.error, ends[:-1])
        for unit, of, places, goal, error, end in zip(units, own, needed, wanted, errors, ends, strict=True):
            part = slice(end - len(places), end)
            where, place = np.nonzero(found.chosen[part])
            chosen[rows[places[where]], of[place]] = True
            sums.candidates[places, unit] = np.minimum((values[part] != 0).sum(1), MOST_CANDIDATES)
            sums.error[places, unit] = (goal - goals[places, unit]) + error
            sums.edges[places, unit] = found.chosen[part].sum(1)
        return errors

    def solve_alone(units: np.ndarray) -> None:
        needed = [np.flatnonzero(np.abs(goals[:, unit]) > tolerance) for unit in units]  # of the others no edge is kept
        solve_some(units, needed, [goals[places, unit] for unit, places in zip(units, needed, strict=True)], tolerance)

    def solve_along(thinned: np.ndarray, part: np.ndarray) -> None:
        left, most = np.zeros((goals.shape[1] + 1, len(goals))), LEFT * tolerance
        for units in lanes:
            needed = [part[thinned[part, unit] != 0] for unit in units]
            wanted = [thinned[places, unit] + left[unit, places] for unit, places in zip(units, needed, strict=True)]
            for unit, places, error in zip(units, needed, solve_some(units, needed, wanted, most), strict=True):
                left[unit, places] = -error.clip(-most, most)
            left[units + 1] = left[units]

    lanes = _lanes(goals.shape[1])
    with ThreadPoolExecutor(threads) as pool:
        if thinned is None:
            list(pool.map(solve_alone, lanes))
        else:
            list(pool.map(partial(solve_along, thinned), np.array_split(np.arange(len(rows)), threads)))
    return chosen, sums


def _lanes(units: int) -> list[np.ndarray]:
    """The units one step after the other: LANES of them at a time, each the next of a run of its own."""
    runs = np.array_split(np.arange(units), min(LANES, units))
    return [np.array([run[step] for run in runs if step < len(run)]) for step in range(len(runs[0]))]


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

"""Subset sums by meeting in the middle: which of at most 24 numbers add up to a target most nearly, for many at once.

The sums of either half of the candidates (at most 2**12) are sorted together, one half as target - sum: the best pair is
then next to each other, since whatever lies between two numbers of different halves is nearer to one of them. Sums are
integers whose low bits say which candidates they are of, so that one vectorised sort does it (Horowitz and Sahni, 1974,
without their two pointers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_CANDIDATES = 24
STAGES = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, MOST_CANDIDATES)  # the time doubles with each two candidates
KEYS = 1 << 16  # sums sorted at a time, so that they lie in the cache


@dataclass(frozen=True)
class Subsets:
    """For each problem the candidates chosen, bool [problems, candidates], and their sum - target, float64 [problems]."""

    chosen: np.ndarray
    error: np.ndarray


def best_subsets(candidates: np.ndarray, targets: np.ndarray) -> Subsets:
    """The subset of each row of `candidates` [problems, n <= 24] whose sum is nearest to its target [problems].

    Exact to the resolution of the integers, 2**(n / 2 - 58) of the sum of all absolute values: no subset is nearer by more.
    """
    problems, count = candidates.shape
    assert count <= MOST_CANDIDATES
    chosen = np.zeros((problems, count), dtype=bool)
    together = max(1, KEYS >> (count + 1) // 2 + 1)
    for start in range(0, problems, together):
        part = slice(start, start + together)
        chosen[part] = _meet(candidates[part].astype(np.float64), targets[part].astype(np.float64))
    return Subsets(chosen, (candidates * chosen).sum(1, dtype=np.float64) - targets)


def _meet(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool [problems, n]: the best subset of each row."""
    problems, count = candidates.shape
    half = (count + 1) // 2
    low = half + 1  # bits of a key that say which candidates, and in the last of them which half
    largest = np.abs(candidates).sum(1) + np.abs(targets)
    unit = largest * 2.0 ** (low - 60)
    unit = np.where(unit > 0, unit, 1.0)  # of numbers so small that no sum of theirs has bits: all are 0
    whole = np.rint(candidates / unit[:, None]).astype(np.int64)
    goal = np.rint(targets / unit).astype(np.int64)
    first, second = subset_sums(whole[:, :half]), subset_sums(whole[:, half:])
    keys = np.concatenate([((goal[:, None] - first) << low) | (np.arange(first.shape[1]) << 1),
                           (second << low) | (np.arange(second.shape[1]) << 1) | 1], axis=1)
    keys.sort(axis=1)
    gaps = keys[:, 1:] - keys[:, :-1]  # the low bits matter to no more than the resolution
    gaps |= (((keys[:, 1:] ^ keys[:, :-1]) & 1) - 1) & (1 << 62)  # two of one half are no pair
    rows, place = np.arange(problems), gaps.argmin(1)
    left, right = keys[rows, place], keys[rows, place + 1]
    left, right = np.where(left & 1, right, left), np.where(left & 1, left, right)
    codes = ((1 << low) - 1) >> 1
    bits = ((left >> 1) & codes) | (((right >> 1) & codes) << half)
    return ((bits[:, None] >> np.arange(count)) & 1).astype(bool)


def subset_sums(values: np.ndarray) -> np.ndarray:
    """The sums of all subsets of each row [rows, n] -> [rows, 2**n]; a place's bits say which values are in it."""
    sums = np.zeros((len(values), 1 << values.shape[1]), dtype=values.dtype)
    for place in range(values.shape[1]):
        sums[:, 1 << place:2 << place] = sums[:, :1 << place] + values[:, place:place + 1]
    return sums


def few_edges(candidates: np.ndarray, counts: np.ndarray, targets: np.ndarray, tolerance: float) -> Subsets:
    """A subset within `tolerance` of each target, of as few of the first candidates as stages go; else the best of all.

    candidates [problems, n <= 24], of which a row's first `counts` are there (the others 0); targets [problems]. A target
    that is itself within the tolerance of 0 gets no candidate. Fewer candidates cost less time and make fewer edges.
    """
    chosen = np.zeros(candidates.shape, dtype=bool)
    error = -targets.astype(np.float64)
    open_rows, tried = np.flatnonzero((np.abs(error) > tolerance) & (counts > 0)), 0
    for stage in STAGES:
        if not len(open_rows) or tried >= candidates.shape[1]:
            break
        found = best_subsets(candidates[open_rows, :stage], targets[open_rows])
        better = np.abs(found.error) < np.abs(error[open_rows])
        rows, tried = open_rows[better], stage
        error[rows] = found.error[better]
        chosen[rows] = False
        chosen[rows, :found.chosen.shape[1]] = found.chosen[better]
        open_rows = open_rows[(np.abs(error[open_rows]) > tolerance) & (counts[open_rows] > stage)]
    return Subsets(chosen & (np.arange(candidates.shape[1]) < counts[:, None]), error)

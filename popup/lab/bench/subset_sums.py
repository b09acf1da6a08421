"""What a subset sum costs (popup/theory/subset_sum.py), beside trying every subset."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from popup.theory.subset_sum import best_subsets

MOST_TRIED = 16  # candidates up to which every subset is tried


@dataclass(frozen=True)
class SumCost:
    """Microseconds of CPU a problem of so many candidates, medians of interleaved rounds; None: trying takes too long."""

    candidates: int
    meeting: float
    trying: float | None


def time_subset_sums(counts: Sequence[int] = (8, 12, 16, 20, 24), rounds: int = 5) -> list[SumCost]:
    """Time both ways in turn on the same problems: candidates and targets uniform in [-1, 1]."""
    draw, rows = np.random.default_rng(0), []
    for count in counts:
        problems = max(8, (1 << 20) >> count)
        candidates, targets = draw.uniform(-1, 1, (problems, count)), draw.uniform(-1, 1, problems)
        few = candidates[:max(1, problems >> 8)], targets[:max(1, problems >> 8)]
        ours, theirs = [], []
        for _ in range(rounds + 1):
            ours.append(_time(best_subsets, candidates, targets) / problems)
            if count <= MOST_TRIED:
                theirs.append(_time(try_all, *few) / len(few[1]))
        rows.append(SumCost(count, 1e6 * float(np.median(ours[1:])), 1e6 * float(np.median(theirs[1:])) if theirs else None))
    return rows


def try_all(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least |sum - target| over all subsets of each row [problems, n]."""
    subsets = ((np.arange(1 << candidates.shape[1])[:, None] >> np.arange(candidates.shape[1])) & 1).astype(np.float64)
    return np.array([np.abs(subsets @ row - target).min() for row, target in zip(candidates, targets, strict=True)])


def _time(step: Callable[[np.ndarray, np.ndarray], object], candidates: np.ndarray, targets: np.ndarray) -> float:
    began = time.process_time()
    step(candidates, targets)
    return time.process_time() - began

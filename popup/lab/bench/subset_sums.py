"""What a subset sum costs (popup/theory/subset_sum.py), beside trying every subset."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from popup.theory.subset_sum import best_subsets

MOST_TRIED = 16  # candidates up to which every subset is tried
TRIED = 32       # problems at a time, in one product


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
        few, table = min(problems, TRIED), subsets(count) if count <= MOST_TRIED else None
        ours, theirs = [], []
        for _ in range(rounds + 1):
            ours.append(_time(best_subsets, candidates, targets) / problems)
            if table is not None:
                theirs.append(_time(partial(try_all, table), candidates[:few], targets[:few]) / few)
        rows.append(SumCost(count, 1e6 * float(np.median(ours[1:])), 1e6 * float(np.median(theirs[1:])) if theirs else None))
    return rows


def subsets(count: int) -> np.ndarray:
    """All subsets of so many candidates, a row each [2 ** count, count]: what problems of one size can share."""
    return ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1).astype(np.float64)


def try_all(table: np.ndarray, candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least |sum - target| over the subsets of a `table` for each row of candidates [problems, n]."""
    return np.abs(table @ candidates.T - targets).min(0)


def _time(step: Callable[[np.ndarray, np.ndarray], object], candidates: np.ndarray, targets: np.ndarray) -> float:
    began = time.process_time()
    step(candidates, targets)
    return time.process_time() - began

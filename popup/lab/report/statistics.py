"""Means and differences over seeds, with Student t intervals. (A percentile bootstrap covers too little at 3 to 10 seeds.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's distribution; scipy.stats, which has it too, takes a second to import

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `count` seeds; `half` is half the width of its 95% interval, None with one seed."""

    value: float
    half: float | None
    count: int

    def text(self, digits: int = 1) -> str:
        """Like 97.3 ±0.4; without an interval like 97.3."""
        interval = "" if self.half is None else f" ±{self.half:.{digits}f}"
        return f"{round(self.value, digits) + 0.0:.{digits}f}{interval}"  # + 0.0: no -0.0


@dataclass(frozen=True)
class Difference:
    """A mean difference over `count` shared seeds, its 95% interval's half width and two-sided p value (paired t test).

    Where it is equal in all seeds there is no interval: few seeds, each of so many images, are equal by chance, and no measure
    of how they vary. Nor is there a p value then, unless nothing differs.
    """

    value: float
    half: float | None
    p_value: float | None
    count: int


def mean(values: Sequence[float]) -> Mean:
    """The mean with its Student t interval."""
    return Mean(float(np.mean(values)), _half_width(np.asarray(values, dtype=float)), len(values))


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """first - second over the seeds that both have; None if they share none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    half = None if _equal(differences) else _half_width(differences)
    return Difference(float(differences.mean()), half, _p_value(differences), len(seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment of the p values of several comparisons made at once (Scand. J. Statist. 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors))
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(value) for value in result]


def intervals_needed(seeds: int, comparisons: int, level: float) -> float:
    """How many times the half width of its interval a difference over `seeds` must be for the least p value of so many
    `comparisons` to be below `level` by Holm's adjustment."""
    return float(stdtrit(seeds - 1, level / 2 / comparisons) / stdtrit(seeds - 1, (1 - CONFIDENCE) / 2))


def _half_width(values: np.ndarray) -> float | None:
    if len(values) < 2:
        return None
    return float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / sqrt(len(values)))


def _equal(values: np.ndarray) -> bool:
    return bool(np.ptp(values) < 1e-9)


def _p_value(differences: np.ndarray) -> float | None:
    if len(differences) < 2:
        return None
    if _equal(differences):
        return 1.0 if abs(differences[0]) < 1e-9 else None
    return float(2 * stdtr(len(differences) - 1, -abs(differences.mean()) / sqrt(differences.var(ddof=1) / len(differences))))

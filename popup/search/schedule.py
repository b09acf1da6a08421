"""The course of k over a search: from k_start, where most edges are kept, down to the k of the ticket."""

from __future__ import annotations

from collections.abc import Callable

# the kept fraction after the part x, in [0, 1), of the way from `start` to `end`
SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "none": lambda start, end, x: end,
    "linear": lambda start, end, x: start + (end - start) * x,
    "cubic": lambda start, end, x: end + (start - end) * (1 - x) ** 3,  # Zhu and Gupta, arXiv 1710.01878, equation 1
    "geometric": lambda start, end, x: start * (end / start) ** x}


def k_at(schedule: str, start: float, end: float, progress: float, until: float) -> float:
    """The kept fraction after `progress` of a search, in [0, 1]: never less than `end`, and `end` from `until` on."""
    return SCHEDULES[schedule](max(start, end), end, progress / until) if progress < until else end

"""The one exception that means 'the caller asked for something that cannot be': one line, with the remedy in it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

MOST_COUNT = 1 << 256  # more than any count, and a number that a float can hold
LONGEST = 200  # letters of a wrong name that are looked at


class UsageError(ValueError):
    """Wrong input: the message is one line that names the value, what is allowed and the remedy."""


def check_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return `name` if it is allowed, or raise a UsageError that offers the nearest allowed one."""
    allowed = list(allowed)
    if name in allowed:
        return name
    near = difflib.get_close_matches(str(name)[:LONGEST], allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"unknown {kind} {name!r:.{LONGEST}}: {hint}allowed are {', '.join(allowed)}")


def check_number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """Return `value` if it lies in [low, high] (in (low, high] with `open_low`), else raise a UsageError."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e308
    inside = number and math.isfinite(value) and low <= value <= high and not (open_low and value == low)
    if inside:
        return value
    top = ")" if math.isinf(high) else "]"
    bounds = f"{'(' if open_low else '['}{low:g}, {high:g}{top}".replace("inf", "infinity")
    raise UsageError(f"{name} is {value!r:.{LONGEST}}: it must be a number in {bounds}")


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise a UsageError."""
    if isinstance(value, bool):
        return value
    raise UsageError(f"{name} is {value!r:.{LONGEST}}: it must be True or False")


def check_count(name: str, value: int, low: int = 1) -> int:
    """Return `value` if it is a whole number of at least `low`, else raise a UsageError."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value < MOST_COUNT:
        return value
    raise UsageError(f"{name} is {value!r:.{LONGEST}}: it must be a whole number, {low} or more")

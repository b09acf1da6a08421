"""The width factor: what `--width` does to the channels and hidden layers of every network here."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor


def scaled(widths: Sequence[int], factor: float, multiple: int = 1) -> tuple[int, ...]:
    """Each width times `factor`, rounded to the nearest multiple of `multiple` (halves up), at least one multiple.

    Raises ValueError for a factor that is not positive.
    """
    if not factor > 0:
        raise ValueError(f"width is {factor!r}: it must be a positive number")
    return tuple(multiple * max(1, floor(width * factor / multiple + 0.5)) for width in widths)

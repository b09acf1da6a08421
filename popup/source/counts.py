"""How many of a layer's edges are kept: k of them, made a whole number. Another way to round is a line of COUNTS."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil

from popup.source.masks import share


def up(k: float, edges: int) -> int:
    """The least whole number from k n on, where k is the decimal number that its repr shows."""
    return ceil(Fraction(repr(float(k))) * edges)


def drop_floor(k: float, edges: int) -> int:
    """What is dropped rounded down, in floats, as github.com/allenai/hidden-networks counts (utils/conv_type.py): `up`, but for
    float errors. At k = 0.9 ten edges of ten are kept, (1 - 0.9) * 10 being 0.9999999999999998."""
    return edges - int((1 - k) * edges)


COUNTS: dict[str, Callable[[float, int], int]] = {"nearest": share, "ceil": up, "drop_floor": drop_floor}


def kept_edges(k: float, edges: int, count: str = "nearest") -> int:
    """n_l, how many of a layer's edges are kept: at least one; a layer in which no edge was drawn keeps none."""
    return max(min(1, edges), COUNTS[count](k, edges))

"""Differences and p values as the cells of tables."""

from __future__ import annotations

from collections.abc import Sequence

from popup.lab.measure import Measure
from popup.lab.report.statistics import Difference, Mean


def difference_cells(difference: Difference, adjusted: float | None, measure: Measure) -> list[str]:
    return [as_mean(difference).text(measure.places), p_cell(difference.p_value), p_cell(adjusted), str(difference.count)]


def unsure(differences: Sequence[Difference]) -> str:
    """What is said below a title of differences without an interval, and of p values that are "-", where there are any."""
    alone = ["one seed"] * any(one.count == 1 for one in differences)
    equal = ["equal in all seeds"] * any(one.count > 1 and one.half is None for one in differences)
    untested = any(one.p_value is None for one in differences)
    return f"; without ±: {' or '.join(alone + equal)}, so no interval{' and no test (-)' * untested}" if alone + equal else ""


def as_mean(difference: Difference) -> Mean:
    return Mean(difference.value, difference.half, difference.count)


def p_cell(value: float | None) -> str:
    return "-" if value is None else ("<0.001" if value < 0.001 else f"{value:.3f}")

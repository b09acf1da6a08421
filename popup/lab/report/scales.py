"""The axes of a comparison's pictures: densities on a logarithmic axis, accuracies on one that is logarithmic in the errors,
the same in sibling panels."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from popup.lab.measure import Measure
from popup.lab.report.comparison import Setting, measured_on, weights_of
from popup.lab.report.statistics import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

SMALL = 8.5   # points, of what stands beside a panel that may be one of three in a row
ASIDE = 0.02  # of the density: how far beside it points are drawn at most


def aside(place: int, count: int) -> float:
    """The factor on the density of the `place`-th of `count` lines, so that points of one density are seen apart."""
    return 1 + ASIDE * (2 * place / (count - 1) - 1) if count > 1 else 1.0


def reach(means: Sequence[Mean], measure: Measure) -> tuple[float, float]:
    """The lowest and the highest end of the intervals of what is measured."""
    ends = [value.value + side * (value.half or 0) for value in means for side in (-1, 1)]
    return max(0.0, min(ends)), min(measure.most, max(ends))


def measure_axis(panel: Axes, found: Sequence[Setting], low: float, high: float) -> None:
    """The axis of what is measured of these settings, from `low` to `high`: where there is a best value, one that is logarithmic
    in what is missing to it."""
    measure, part = found[0].measure, measured_on(found)
    if measure.most < inf:
        stretch_accuracy(panel, part, low, high)
    else:
        spare = 0.05 * (high - low) or 0.1
        panel.set_ylim(low - spare, high + spare)
        panel.set_ylabel(f"{part} {measure.name} ({measure.unit.strip()})", fontsize=SMALL)


def log_density(panel: Axes, found: Sequence[Setting], further: Sequence[float] = ()) -> None:
    """A logarithmic axis of the final densities of `found`, and of `further` ones, whose ticks are plain numbers, two or more."""
    densities = [*(setting.final_density for setting in found), *further]
    low, high = min(densities), max(densities)
    panel.set_xlabel(f"final density (kept / all {weights_of(found)})", fontsize=SMALL)
    if low <= 0:  # networks without an edge, which have no place on such an axis
        return
    panel.set(xscale="log")
    ticks = round_ticks(0.7 * low, min(1.0, 1.4 * high))
    if high < 1.05 * low:
        panel.set_xlim(low / 2, 2 * high)
        ticks = [round(high, 4)]
    else:
        spare = (high / low) ** 0.06
        panel.set_xlim(min(low / spare, *ticks), max(high * spare, *ticks))
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def round_ticks(low: float, high: float, most: int = 99) -> list[float]:
    """Round numbers between two, for a logarithmic axis: two or more, if there are so many, and at most `most` of those that
    lie as close as that."""
    sets = [[float(f"{digit}e{power}") for power in range(-9, 10) for digit in digits]
            for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10), (*range(1, 10), 1.2, 1.5, 2.5, 3.5))]
    clear = [[tick for tick in ticks if low <= tick <= high] for ticks in sets]
    found = next((ticks for ticks in clear[2 if high < 300 * low else 0:] if len(ticks) > 1), clear[-1])
    return max((ticks for ticks in [found, *clear[:2]] if len(ticks) <= most), key=len, default=found)


def plain_log(axis: Axis, most: int = 99) -> None:
    """A logarithmic axis with plain numbers at its ticks, at most so many."""
    low, high = sorted(axis.get_view_interval())
    ticks = round_ticks(low, high, most)
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(_no_ticks())


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def stretch_accuracy(panel: Axes, measured: str, low: float, high: float) -> None:
    """An axis of accuracies on `measured` (test, validation) from `low` to `high` that is logarithmic in the errors: 98 and 99%
    part as 80 and 90% do, and chance stays in sight."""
    spare = max(0.25, (100 - min(high, 100)) / 4)  # percent; keeps 100% at a finite place

    def forward(accuracy: np.ndarray | float) -> np.ndarray:
        return -np.log(np.maximum(100 + spare - np.asarray(accuracy, dtype=float), spare))

    def inverse(place: np.ndarray) -> np.ndarray:
        return 100 + spare - np.exp(-np.asarray(place, dtype=float))

    panel.set_yscale("function", functions=(forward, inverse))
    ticks = accuracy_ticks(low - 3, min(100, high + 0.6))
    apart = 0.045 * (forward(high) - forward(low - 3))
    clear = [tick for place, tick in enumerate(ticks) if not place or forward(tick) - forward(ticks[place - 1]) > apart]
    panel.set_yticks(clear, [f"{tick:g}" for tick in clear])
    panel.set_ylim(max(0, low - 3), min(100 + spare / 2, high + min(spare / 2, max(0.3, (high - low) / 5))))
    panel.set_ylabel(f"{measured} accuracy (%)", fontsize=SMALL)


def accuracy_ticks(low: float, high: float) -> list[float]:
    """Round accuracies between two: at least four, from steps that are as coarse as that allows."""
    fine = (98, 99, 99.5, 100)
    sets = [(0, 10, 20, 40, 60, 70, 80, 90, 95, *fine),
            *(sorted({*np.arange(0, 100, step).round(1), *fine}) for step in (5, 2, 1, 0.5, 0.2))]
    found = [[float(tick) for tick in ticks if low <= tick <= high] for ticks in sets]
    return next((ticks for ticks in found if len(ticks) >= 4), found[-1])


def whole_numbers(axis: Axis) -> None:
    """Have the ticks at whole numbers alone."""
    locator: Any = axis.get_major_locator()
    locator.set_params(integer=True)

"""What the pictures of a comparison share: panels, lines by a factor, bands of intervals, axes of density and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from popup.lab.report.comparison import Setting, show
from popup.lab.report.plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = "osD^vPX*"


def grid(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of up to three panels a row, readable at half a column's width."""
    from matplotlib.figure import Figure  # half a second of import that only pictures need

    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=((6.6, 8.6, 11.0)[columns - 1], 3.4 * rows), layout="constrained", dpi=150)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    for panel in axes[:panels]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set_fontsize(9)
    return figure, axes[:panels]


def legend(figure: Figure, panel: Axes, title: str | None = None) -> None:
    """One legend beside the panels, where it cannot hide a point."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=7, title=title,
                  title_fontsize=7)


def lines_by(found: Sequence[Setting], name: str) -> list[list[Setting]]:
    """The settings by the value of a field, each group sorted by final density."""
    values = sorted({setting.config.flat()[name] for setting in found}, reverse=name == "er_p")
    return [sorted((setting for setting in found if setting.config.flat()[name] == value),
                   key=lambda setting: setting.final_density) for value in values]


def band(panel: Axes, line: Sequence[Setting], colour: str, marker: str, label: str) -> None:
    """Means with the band of their 95% intervals."""
    x, means = [setting.final_density for setting in line], [setting.accuracy for setting in line]
    y, half = np.array([value.value for value in means]), np.array([value.half or 0 for value in means])
    if len(x) == 1:
        panel.errorbar(x, y, half, color=colour, capsize=2, linewidth=1)
    panel.fill_between(x, y - half, np.minimum(100, y + half), color=colour, alpha=0.18, linewidth=0)
    panel.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)


def log_density(panel: Axes, name: str, found: Sequence[Setting]) -> None:
    """A logarithmic axis of densities whose ticks are plain numbers."""
    low, high = (limit([setting.final_density for setting in found]) for limit in (min, max))
    panel.set(xscale="log", xlabel=name)
    ticks = [tick for power in range(-5, 1) for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
             if 0.7 * low <= tick <= min(1.0, 1.4 * high)]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def stretch_accuracy(panel: Axes) -> None:
    """An accuracy axis that is logarithmic in the errors: 98 and 99% part as 80 and 90% do, and chance stays in sight."""
    low, high = panel.dataLim.intervaly
    spare = max(0.25, (100 - min(high, 100)) / 4)  # percent; keeps 100% at a finite place

    def forward(accuracy: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(100 + spare - np.asarray(accuracy, dtype=float), spare))

    def inverse(place: np.ndarray) -> np.ndarray:
        return 100 + spare - np.exp(-np.asarray(place, dtype=float))

    panel.set_yscale("function", functions=(forward, inverse))
    ticks = _ticks(low - 3, min(100, high + 0.6))
    apart = 0.045 * (forward(high) - forward(low - 3))
    clear = [tick for place, tick in enumerate(ticks) if not place or forward(tick) - forward(ticks[place - 1]) > apart]
    panel.set_yticks(clear, [f"{tick:g}" for tick in clear])
    panel.set_ylim(max(0, low - 3), min(100 + spare / 2, high + min(spare / 2, max(0.3, (high - low) / 5))))
    panel.set_ylabel("accuracy (%), log scale of the errors")
    panel.yaxis.label.set_fontsize(8.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round accuracies between two: at least four, from steps that are as coarse as that allows."""
    fine = (98, 99, 99.5, 100)
    sets = [(0, 10, 20, 40, 60, 70, 80, 90, 95, *fine),
            *(sorted({*np.arange(0, 100, step).round(1), *fine}) for step in (5, 2, 1, 0.5, 0.2))]
    found = [[float(tick) for tick in ticks if low <= tick <= high] for ticks in sets]
    return next((ticks for ticks in found if len(ticks) >= 4), found[-1])


def group_title(group: Sequence[Setting], without: Sequence[str]) -> str:
    first = group[0]
    if first.usual:
        return first.label(without) or "nothing changed"
    return ", ".join(show(value) for name, value in first.factors.items() if name not in without)


def curves(found: Sequence[Setting], column: str, name: str, yscale: str = "linear") -> Figure | None:
    figure, (panel,) = grid(1)
    places = sorted({round(place) for place in np.linspace(0, len(found) - 1, min(8, len(found)))})
    for index, setting in enumerate(found[place] for place in places):
        histories = [[row[column] for row in run.metrics()] for run in setting.runs]
        means = np.mean([history[:min(map(len, histories))] for history in histories], axis=0)
        panel.plot(range(1, len(means) + 1), means, color=COLOURS[index], linewidth=1.2,
                   label=setting.label().replace("er_p", "p") or "all")
    panel.set(xlabel="epoch", ylabel=name, yscale=yscale)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if column == "test_accuracy":
        stretch_accuracy(panel)
    legend(figure, panel)
    return figure

"""What the pictures of a comparison share: panels, lines by a factor, bands of intervals, axes of density and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from popup.lab.report.comparison import ANY, Setting, measured_on, show
from popup.lab.report.plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from popup.lab.report.tables import wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = "osD^vPX*"
PANELS = 6   # of one figure
SMALL = 8.5  # points, of what stands beside a panel that may be one of three in a row
BESIDE = 36  # letters of the longest label of a legend that stands beside the panels; longer ones would crush them
BELOW = "below"  # what such a legend is called
OTHERS = "compared with"  # the heading of a legend's references
FIGURES = 4  # of one kind: more than all their panels nobody looks at


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
    return figure, axes[:panels]


def paged(groups: Sequence[list[Setting]], draw: Callable[[Figure, list[Axes], Sequence[list[Setting]]], None]) -> list[Figure]:
    """`draw` on as many figures as the groups need, a panel each; the last figure says what is left out."""
    shown, figures = groups[:PANELS * FIGURES], []
    for start in range(0, len(shown), PANELS):
        part = shown[start:start + PANELS]
        figure, axes = grid(len(part))
        draw(figure, axes, part)
        figures.append(figure)
    if len(shown) < len(groups):
        note(figures[-1], f"{len(shown)} of {len(groups)} panels are drawn; the tables have all")
    return figures


def note(figure: Figure, text: str) -> None:
    """A line below the panels, after those that are there; above the legend if that stands below them."""
    if lower := [found for found in figure.legends if found.get_gid() == BELOW]:
        lower[0].set_title("\n".join(filter(None, (text, lower[0].get_title().get_text()))), {"size": 7})
        return
    figure.supxlabel("; ".join(filter(None, (figure.get_supxlabel(), text))), fontsize=7)


def legend(figure: Figure, panels: Sequence[Axes], title: str | None = None, order: Sequence[str] = ()) -> None:
    """One legend of all panels' lines, where it cannot hide a point: beside them, or below them if its words are long. Under the
    title come the labels of `order` in that order, then the others, below a heading of their own."""
    from matplotlib.lines import Line2D

    found = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    labels = [label for label in order if label in found]
    others = [label for label in found if label not in order]
    if labels and others:
        found[OTHERS] = Line2D([], [], linestyle="")
        others.insert(0, OTHERS)
    labels += others
    look = {"frameon": False, "fontsize": 7, "title": title, "title_fontsize": 7, "alignment": "left"}
    if max(map(len, labels), default=0) > BESIDE:
        look |= _below(figure, labels, title)
    drawn = figure.legend([found[label] for label in labels], [wrap(label, _letters(figure)) for label in labels],
                          **{"loc": "outside right upper"} | look)
    drawn.set_gid(BELOW if "ncols" in look else None)


def _letters(figure: Figure) -> int:
    """How many letters of a legend fit beside its sign in a line as wide as the figure."""
    return int(15 * figure.get_figwidth()) - 8


def _below(figure: Figure, labels: Sequence[str], title: str | None) -> dict[str, Any]:
    """Make room for a legend below the panels, a note that is there becoming a part of its title; returns its look."""
    title = "\n".join(filter(None, (figure.get_supxlabel(), title)))
    figure.supxlabel("")
    columns = max(1, _letters(figure) // (max(map(len, labels)) + 8))
    lines = sum(len(wrap(label, _letters(figure)).splitlines()) for label in labels) / columns
    height = 0.12 * (lines + len(title.splitlines())) + 0.05 * len(labels) / columns  # inches
    figure.set_figheight(figure.get_figheight() + height + 0.2)
    return {"loc": "outside lower left", "ncols": columns, "title": title or None}


def values_of(found: Sequence[Setting], name: str) -> list:
    """The values of a field, in the order of their lines."""
    return sorted({setting.value(name) for setting in found}, reverse=name == "er_p",
                  key=lambda value: (value == ANY, str(type(value)), value))


def lines_by(found: Sequence[Setting], name: str, values: Sequence) -> list[tuple[str, str, list[Setting]]]:
    """The settings by the value of a field, each group sorted by final density, with a colour and a marker that only the
    value's place among `values` decides: the same in each panel."""
    lines = [(COLOURS[place % 8], MARKERS[(place + place // 8) % 8],
              sorted((setting for setting in found if setting.value(name) == value), key=lambda setting: setting.final_density))
             for place, value in enumerate(values)]
    return [line for line in lines if line[2]]


def band(panel: Axes, line: Sequence[Setting], colour: str, marker: str, label: str) -> None:
    """Means with the band of their 95% intervals."""
    x, means = [setting.final_density for setting in line], [setting.accuracy for setting in line]
    y, half = np.array([value.value for value in means]), np.array([value.half or 0 for value in means])
    if len(x) == 1:
        panel.errorbar(x, y, half, color=colour, capsize=2, linewidth=1)
    panel.fill_between(x, y - half, np.minimum(100, y + half), color=colour, alpha=0.18, linewidth=0)
    panel.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)


def log_density(panel: Axes, name: str, found: Sequence[Setting]) -> None:
    """A logarithmic axis of densities whose ticks are plain numbers, two or more."""
    low, high = (limit([setting.final_density for setting in found]) for limit in (min, max))
    panel.set_xlabel(name, fontsize=SMALL)
    if low <= 0:  # networks without an edge, which have no place on such an axis
        return
    panel.set(xscale="log")
    sets = [[digit * 10.0**power for power in range(-9, 1) for digit in digits] for digits in ((1, 2, 5), range(1, 10))]
    clear = [[tick for tick in ticks if 0.7 * low <= tick <= min(1.0, 1.4 * high)] for ticks in sets]
    ticks = next((ticks for ticks in clear if len(ticks) > 1), clear[-1])
    if high < 1.05 * low:
        panel.set_xlim(low / 2, 2 * high)
        ticks = [round(high, 4)]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def stretch_accuracy(panel: Axes, measured: str) -> None:
    """An axis of accuracies on `measured` (test, validation) that is logarithmic in the errors: 98 and 99% part as 80 and 90%
    do, and chance stays in sight."""
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
    panel.set_ylabel(f"{measured} accuracy (%), log scale of errors", fontsize=SMALL)


def _ticks(low: float, high: float) -> list[float]:
    """Round accuracies between two: at least four, from steps that are as coarse as that allows."""
    fine = (98, 99, 99.5, 100)
    sets = [(0, 10, 20, 40, 60, 70, 80, 90, 95, *fine),
            *(sorted({*np.arange(0, 100, step).round(1), *fine}) for step in (5, 2, 1, 0.5, 0.2))]
    found = [[float(tick) for tick in ticks if low <= tick <= high] for ticks in sets]
    return next((ticks for ticks in found if len(ticks) >= 4), found[-1])


def entitle(panel: Axes, title: str) -> None:
    """A title of a size that stays within a panel of three in a row."""
    panel.set_title(wrap(title, 40), fontsize=SMALL)


def group_title(group: Sequence[Setting], without: Sequence[str]) -> str:
    """What the settings of a panel share, but for the factors `without`."""
    first = group[0]
    if first.usual:
        return first.label(without) or "nothing changed"
    return ", ".join(value if isinstance(value, str) else f"{name} {show(value)}".replace("er_p", "p")
                     for name, value in first.factors.items() if name not in without)


def curves(found: Sequence[Setting], column: str, name: str, yscale: str = "linear") -> list[Figure]:
    """A measure by epoch, mean over seeds, of at most as many settings as there are colours, spread over the grid; of those whose
    runs have recorded it."""
    found = [setting for setting in found
             if all(row.get(column) is not None for run in setting.runs for row in run.metrics())]
    if not found:
        return []
    figure, (panel,) = grid(1)
    places = sorted({round(place) for place in np.linspace(0, len(found) - 1, min(len(COLOURS), len(found)))})
    for index, setting in enumerate(found[place] for place in places):
        histories = [[row[column] for row in run.metrics()] for run in setting.runs]
        means = np.mean([history[:min(map(len, histories))] for history in histories], axis=0)
        panel.plot(range(1, len(means) + 1), means, color=COLOURS[index], linewidth=1.2, label=short_label(setting),
                   marker=MARKERS[index] if len(means) == 1 else "")
    panel.set(xlabel="epoch", ylabel=name, yscale=yscale)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if all(len(line.get_xdata()) == 1 for line in panel.lines):
        panel.set_xticks([1])
    if column == "test_accuracy":
        stretch_accuracy(panel, measured_on(found))
    if len(places) < len(found):
        note(figure, f"{len(places)} of {len(found)} settings, spread over the grid")
    legend(figure, [panel])
    return [figure]


def short_label(setting: Setting, without: Sequence[str] = ()) -> str:
    """The name of a setting's line: its factors, but for those that are as usual."""
    return setting.label(without).replace("er_p", "p") or ("nothing changed" if setting.usual else "all")

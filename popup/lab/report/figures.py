"""The pictures of a comparison, as matplotlib Figures. A new one is a function and a line in FIGURES.

Every function takes the settings and returns one figure or more, none where they have nothing to show it with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from popup.lab.report.axes import (
    COLOURS,
    MARKERS,
    band,
    curves,
    entitle,
    grid,
    group_title,
    legend,
    lines_by,
    log_density,
    note,
    paged,
    short_label,
    stretch_accuracy,
    values_of,
)
from popup.lab.report.comparison import AXES, Setting, measured_on, panels, show
from popup.lab.report.contrast_figures import changes, sparse_against_dense
from popup.lab.report.plots import BLACK, PURPLE
from popup.lab.runs.controls import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCES = {"random_trained": (BLACK, "--"), "random": (BLACK, ":"), "redrawn": (PURPLE, ":"), "ticket_trained": (PURPLE, "--"),
              "magnitude_trained": (BLACK, "-.")}


def density_curve(found: Sequence[Setting]) -> list[Figure]:
    """Accuracy against the final density, a line and band for each p, controls as reference lines."""
    shown = [setting for setting in found if not setting.changed]
    if len(found) < 2:
        return []
    values = values_of(shown, "er_p")

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        merged = [_references(panel, group) for panel, group in zip(axes, groups, strict=True)]
        for panel, group in zip(axes, groups, strict=True):
            for colour, marker, line in lines_by(group, "er_p", values):
                band(panel, line, colour, marker, f"p = {line[0].value('er_p'):g}")
            log_density(panel, "final density: kept / all weights, realised", group)
            entitle(panel, group_title(group, AXES))
            stretch_accuracy(panel, measured_on(group))
        if any(merged):
            note(figure, "controls: means over the sources of like final density, whatever their p")
        legend(figure, axes, "ticket from an ER source with", [f"p = {p:g}" for p in values])

    return paged(panels(shown, AXES), draw)


def compared(found: Sequence[Setting]) -> list[Figure]:
    """Accuracy against the final density, a line for each value of what varies beside p and k: the methods, or else the
    factor with the most values."""
    varied = {name: len(values_of(found, name)) for name in found[0].factors if name not in AXES}
    if not varied or found[0].usual:
        return []
    factor = max(varied, key=lambda name: (name == "method", varied[name]))
    across = ("k",) if {"er_p", "k"} <= found[0].factors.keys() else AXES
    values = values_of(found, factor)

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            for colour, marker, line in lines_by(group, factor, values):
                means = [setting.accuracy for setting in line]
                panel.errorbar([setting.final_density for setting in line], [mean.value for mean in means],
                               [mean.half or 0 for mean in means], color=colour, capsize=2, linewidth=1.2, markersize=4,
                               marker=marker, label=show(line[0].value(factor)))
            log_density(panel, "final density: kept / all weights, realised", group)
            entitle(panel, group_title(group, (factor, *across)))
            stretch_accuracy(panel, measured_on(group))
        legend(figure, axes, factor, [show(value) for value in values])

    return paged(panels(found, (factor, *across)), draw)


def _references(panel: Axes, group: Sequence[Setting]) -> bool:
    """The dense network as a level, other controls as their mean over the settings of like final density. Returns whether
    some are means over several p."""
    level = next((setting.control("dense_trained") for setting in group if setting.controls["dense_trained"]), None)
    merged = False
    if level:
        panel.axhline(level.value, color=BLACK, linewidth=0.8, label="dense, weights trained")
    for role, (colour, style) in REFERENCES.items():
        parts = _alike([setting for setting in group if setting.controls[role]])
        if parts:
            points = [(np.mean([setting.final_density for setting in part]),
                       np.mean([setting.control(role).value for setting in part])) for part in parts]
            panel.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1, label=CONTROLS[role].title,
                       marker="_" if len(points) == 1 else "", markersize=12)
        merged |= any(len(values_of(part, "er_p")) > 1 for part in parts)
    return merged


def _alike(found: Sequence[Setting]) -> list[list[Setting]]:
    """The settings by their final density: those within 3% of the lowest of a part belong to it."""
    parts: list[list[Setting]] = []
    for setting in sorted(found, key=lambda setting: setting.final_density):
        if parts and setting.final_density < 1.03 * parts[-1][0].final_density:
            parts[-1].append(setting)
        else:
            parts.append([setting])
    return parts


def layer_densities(found: Sequence[Setting]) -> list[Figure]:
    """p_l of the source and the kept density, layer by layer, for each layerwise density: at the median of the p below 1, where
    these differ, and of the k at that p."""
    er_p = _median([setting.value("er_p") for setting in found if setting.value("er_p") < 1] or [1.0])
    k = _median([setting.value("k") for setting in found if setting.value("er_p") == er_p])
    chosen = [setting for setting in found if (setting.value("er_p"), setting.value("k")) == (er_p, k)]
    figure, (left, right) = grid(2)
    unlike = {json.dumps(setting.runs[0].result["layers"]): setting for setting in reversed(chosen)}  # first of equal ones
    lines = [setting for setting in chosen if setting in unlike.values()]
    for index, setting in enumerate(lines[:len(COLOURS)]):
        layers = setting.runs[0].result["layers"]
        label = short_label(setting, AXES) if len(lines) > 1 else setting.config.source.density
        for panel, values in ((left, [row["edges"] / row["entries"] for row in layers]),
                              (right, [row["density"] for row in layers])):
            panel.plot(range(1, len(values) + 1), values, color=COLOURS[index], marker=MARKERS[index], markersize=3, label=label)
    left.set(xlabel="layer", ylabel="edges / entries", title=f"source, p = {er_p:g}")
    right.set(xlabel="layer", ylabel="kept / entries", title=f"ticket, k = {k:g}")
    for panel in (left, right):
        shown = [value for line in panel.lines for value in line.get_ydata() if value > 0]  # a layer may have no edge
        if shown:
            panel.set(yscale="log", ylim=(min(min(shown) / 1.3, max(shown) / 10), min(1.1, max(shown) * 1.5)))
        panel.xaxis.get_major_locator().set_params(integer=True)
    if len(lines) > len(COLOURS):
        note(figure, f"{len(COLOURS)} of {len(lines)} settings")
    legend(figure, [left])
    return [figure]


def _median(values: Sequence[float]) -> float:
    """The one in the middle of the distinct values."""
    distinct = sorted(set(values))
    return distinct[len(distinct) // 2]


def training_curves(found: Sequence[Setting]) -> list[Figure]:
    """Accuracy by epoch, mean over seeds."""
    return curves(found, "test_accuracy", "")


def heat_map(found: Sequence[Setting]) -> list[Figure]:
    """Mean accuracy over p and k."""
    ps, ks = (sorted({setting.value(name) for setting in found}) for name in AXES)
    if len(ps) < 2 or len(ks) < 2 or len(ps) * len(ks) > 200:
        return []
    accuracies = [setting.accuracy.value for setting in found]
    low, high = min(accuracies), max(accuracies)

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            cells = np.full((len(ks), len(ps)), np.nan)
            for setting in group:
                cells[ks.index(setting.value("k")), ps.index(setting.value("er_p"))] = setting.accuracy.value
            image = panel.imshow(cells, origin="lower", aspect="auto", cmap="cividis", vmin=low, vmax=high)
            for (row, column), value in np.ndenumerate(cells):
                panel.text(column, row, "" if np.isnan(value) else f"{value:.1f}", ha="center", va="center", fontsize=7,
                           color="white" if value < (low + high) / 2 else "black")
            panel.set_xticks(range(len(ps)), [f"{p:g}" for p in ps])
            panel.set_yticks(range(len(ks)), [f"{k:.3g}" for k in ks])
            panel.set(xlabel="ER density p", ylabel="kept fraction k of the edges")
            entitle(panel, group_title(group, AXES))
        figure.colorbar(image, ax=list(axes), label=f"{measured_on(found)} accuracy (%)")

    return paged(panels(found, AXES), draw)


FIGURES: dict[str, tuple[str, Callable[[Sequence[Setting]], Any]]] = {
    "accuracy": ("Accuracy against final density", density_curve),
    "compared": ("What is compared, against final density", compared),
    "changes": ("What a change does to the usual setting", changes),
    "sparse_against_dense": ("ER source against dense source at equal p k", sparse_against_dense),
    "heat_map": ("Accuracy over p and k", heat_map),
    "layers": ("Layerwise densities", layer_densities),
    "training": ("Training curves", training_curves),
}

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
    SMALL,
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
    stretch_accuracy,
    values_of,
)
from popup.lab.report.comparison import AXES, Setting, measured_on, panels, show
from popup.lab.report.contrasts import change_contrasts, source_contrasts
from popup.lab.report.plots import BLACK, PURPLE
from popup.lab.report.tables import wrap
from popup.lab.runs.controls import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ASIDE = 0.03  # of the density: how far beside it points are drawn at most
REFERENCES = {"random_trained": (BLACK, "--"), "random": (BLACK, ":"), "redrawn": (PURPLE, ":")}


def density_curve(found: Sequence[Setting]) -> list[Figure]:
    """Accuracy against the final density, a line and band for each p, controls as reference lines."""
    shown = [setting for setting in found if not setting.changed]
    if len(found) < 2:
        return []
    values = values_of(shown, "er_p")

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            _references(panel, group)
            for colour, marker, line in lines_by(group, "er_p", values):
                band(panel, line, colour, marker, f"p = {line[0].value('er_p'):g}")
            log_density(panel, "final density: kept / all weights, realised", group)
            entitle(panel, group_title(group, AXES))
            stretch_accuracy(panel, measured_on(group))
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


def changes(found: Sequence[Setting]) -> list[Figure]:
    """Where a few things were changed at a time: what each change adds to the usual setting, for each p (and each k)."""
    contrasts = change_contrasts(found)
    if not contrasts:
        return []
    gains: dict[str, list[float]] = {}
    for contrast in contrasts:
        gains.setdefault(contrast.first.changed, []).append(contrast.difference.value)
    names = sorted(gains, key=lambda name: -np.mean(gains[name]))
    reach = 2 * max(abs(value) for values in gains.values() for value in values) or 1.0  # two seeds' intervals go beyond
    figure, (panel,) = grid(1)
    cases = sorted({_case(contrast.first) for contrast in contrasts}, reverse=True)
    labels = [wrap(name, 44) for name in names]
    rows = max(0.28, 0.1 * len(cases), 0.16 * max(len(label.splitlines()) for label in labels))  # inches
    figure.set_size_inches(8, 1.2 + len(names) * rows)
    for index, case in enumerate(cases):
        shift = 0.7 * ((index + 0.5) / len(cases) - 0.5)
        mine = [contrast for contrast in contrasts if _case(contrast.first) == case]
        panel.errorbar([contrast.difference.value for contrast in mine],
                       [names.index(contrast.first.changed) + shift for contrast in mine],
                       xerr=[contrast.difference.half or 0 for contrast in mine], linestyle="none", capsize=2, markersize=4,
                       color=COLOURS[index % 8], marker=MARKERS[(index + index // 8) % 8],
                       label=", ".join(f"{name} = {value:.3g}" for name, value in zip("pk", case, strict=True)))
    panel.axvline(0, color=BLACK, linewidth=0.8)
    panel.set_yticks(range(len(names)), labels)
    panel.set_ylim(len(names) - 0.5, -0.5)
    low, high = panel.get_xlim()
    panel.set(xlabel="difference to the usual setting (percentage points, paired over seeds)", xlim=(max(low, -reach),
                                                                                                     min(high, reach)))
    legend(figure, [panel])
    return [figure]


def _case(setting: Setting) -> tuple[float, float]:
    return setting.value("er_p"), setting.value("k")


def _references(panel: Axes, group: Sequence[Setting]) -> None:
    """The dense network as a level, other controls as their mean over the settings of like final density."""
    level = next((setting.control("dense_trained") for setting in group if setting.controls["dense_trained"]), None)
    if level:
        panel.axhline(level.value, color=BLACK, linewidth=0.8, label="dense, weights trained")
    for role, (colour, style) in REFERENCES.items():
        points = sorted((setting.final_density, setting.control(role).value) for setting in group if setting.controls[role])
        if points:
            merged = _merge_close(points)
            panel.plot(*zip(*merged, strict=True), color=colour, linestyle=style, linewidth=1, label=CONTROLS[role].title,
                       marker="_" if len(merged) == 1 else "", markersize=12)


def _merge_close(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points within 3% of each other's density become their mean."""
    merged: list[list[tuple[float, float]]] = []
    for point in points:
        if merged and point[0] < 1.03 * merged[-1][0][0]:
            merged[-1].append(point)
        else:
            merged.append([point])
    return [(float(np.mean([x for x, _ in part])), float(np.mean([y for _, y in part]))) for part in merged]


def sparse_against_dense(found: Sequence[Setting]) -> list[Figure]:
    """What starting inside an ER network costs: paired differences at equal p k, a colour for each p, a panel for what else
    tells the sources apart."""
    contrasts = source_contrasts(found)
    if not contrasts:
        return []
    values = values_of([contrast.first for contrast in contrasts], "er_p")
    reach = [contrast.difference.value + side * (contrast.difference.half or 0) for contrast in contrasts for side in (-1, 1)]
    spare = 0.05 * (max(*reach, 0) - min(*reach, 0)) or 1.0

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            for colour, marker, line in lines_by(group, "er_p", values):
                place = values.index(line[0].value("er_p"))
                mine = [contrast for contrast in contrasts if contrast.first in line]
                panel.errorbar([contrast.first.final_density * _aside(place, len(values)) for contrast in mine],
                               [contrast.difference.value for contrast in mine],
                               [contrast.difference.half or 0 for contrast in mine], fmt=marker, color=colour, capsize=2,
                               markersize=4, label=f"p = {values[place]:g}")
            panel.axhline(0, color=BLACK, linewidth=0.8)
            log_density(panel, "final density (realised)", group)
            panel.set(ylim=(min(*reach, 0) - spare, max(*reach, 0) + spare))
            panel.set_ylabel("ER source minus dense source\n(percentage points)", fontsize=SMALL)
            entitle(panel, group_title(group, AXES) or "equal p k, paired over seeds")
        note(figure, f"equal p k, paired over seeds; points of one density stand up to {100 * ASIDE:g}% beside it")
        legend(figure, axes, "ER source with", [f"p = {p:g}" for p in values])

    return paged(panels([contrast.first for contrast in contrasts], AXES), draw)


def _aside(place: int, count: int) -> float:
    """The factor on the density of the `place`-th of `count` values of p, so that points of one density are seen apart."""
    return 1 + ASIDE * (2 * place / (count - 1) - 1) if count > 1 else 1.0


def layer_densities(found: Sequence[Setting]) -> list[Figure]:
    """p_l of the source and the kept density, layer by layer, for each layerwise density (at the middle p and k)."""
    middle = found[len(found) // 2].config.source
    chosen = [setting for setting in found if setting.config.source.er_p == middle.er_p and setting.config.source.k == middle.k]
    figure, (left, right) = grid(2)
    unlike = {json.dumps(setting.runs[0].result["layers"]): setting for setting in reversed(chosen)}  # first of equal ones
    lines = [setting for setting in chosen if setting in unlike.values()]
    for index, setting in enumerate(lines[:len(COLOURS)]):
        layers = setting.runs[0].result["layers"]
        label = setting.label(AXES) if len(lines) > 1 else setting.config.source.density
        for panel, values in ((left, [row["edges"] / row["entries"] for row in layers]),
                              (right, [row["density"] for row in layers])):
            panel.plot(range(1, len(values) + 1), values, color=COLOURS[index], marker=MARKERS[index], markersize=3, label=label)
    left.set(xlabel="layer", ylabel="edges / entries", title=f"source, p = {middle.er_p:g}")
    right.set(xlabel="layer", ylabel="kept / entries", title=f"ticket, k = {middle.k:g}")
    for panel in (left, right):
        shown = [value for line in panel.lines for value in line.get_ydata() if value > 0]  # a layer may have no edge
        panel.set(yscale="log", ylim=(min(min(shown) / 1.3, max(shown) / 10), min(1.1, max(shown) * 1.5)))
        panel.xaxis.get_major_locator().set_params(integer=True)
    if len(lines) > len(COLOURS):
        note(figure, f"{len(COLOURS)} of {len(lines)} settings")
    legend(figure, [left])
    return [figure]


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

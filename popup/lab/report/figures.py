"""The pictures of a comparison, each a matplotlib Figure. A new one is a function and a line in FIGURES.

Every function takes the settings and returns None where they have nothing to show it with.
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
    grid,
    group_title,
    legend,
    lines_by,
    log_density,
    stretch_accuracy,
)
from popup.lab.report.comparison import Setting, change_contrasts, groups, measured_on, show, source_contrasts
from popup.lab.report.plots import BLACK, PURPLE
from popup.lab.runs.controls import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 6  # the most panels of one picture
REFERENCES = {"random_trained": (BLACK, "--"), "random": (BLACK, ":"), "redrawn": (PURPLE, ":")}


def density_curve(found: Sequence[Setting]) -> Figure | None:
    """Accuracy against the final density, a line and band for each p, controls as reference lines."""
    panels = groups([setting for setting in found if not setting.changed], ("er_p", "k"))[:PANELS]
    if len(found) < 2 or not panels:
        return None
    figure, axes = grid(len(panels))
    for place, (panel, group) in enumerate(zip(axes, panels, strict=True)):
        _references(panel, group, label=place == 0)
        for index, line in enumerate(lines_by(group, "er_p")):
            band(panel, line, COLOURS[index % 8], MARKERS[index % 8], f"p = {line[0].config.source.er_p:g}")
        log_density(panel, "final density: kept / all weights (realised)", group)
        panel.set(title=group_title(group, ("er_p", "k")))
        stretch_accuracy(panel)
    legend(figure, axes[0], title="ticket from an ER source with")
    return figure


def compared(found: Sequence[Setting]) -> Figure | None:
    """Accuracy against the final density, a line for each value of what varies beside p and k: the methods, or else the
    factor with the most values."""
    varied = {name: len({setting.config.flat()[name] for setting in found}) for name in found[0].factors
              if name not in ("er_p", "k")}
    if not varied or found[0].usual:
        return None
    factor = max(varied, key=lambda name: (name == "method", varied[name]))
    across = ("k",) if {"er_p", "k"} <= found[0].factors.keys() else ("er_p", "k")
    panels = groups(found, (factor, *across))[:PANELS]
    figure, axes = grid(len(panels))
    for panel, group in zip(axes, panels, strict=True):
        for index, line in enumerate(lines_by(group, factor)):
            means = [setting.accuracy for setting in line]
            panel.errorbar([setting.final_density for setting in line], [mean.value for mean in means],
                           [mean.half or 0 for mean in means], color=COLOURS[index % 8], capsize=2, linewidth=1.2, markersize=4,
                           marker=MARKERS[(index + index // 8) % 8], label=show(line[0].config.flat()[factor]))
        log_density(panel, "final density: kept / all weights (realised)", group)
        panel.set(title=group_title(group, (factor, *across)))
        stretch_accuracy(panel)
    legend(figure, axes[0], title=factor)
    return figure


def changes(found: Sequence[Setting]) -> Figure | None:
    """Where a few things were changed at a time: what each change adds to the usual setting, for each p."""
    contrasts = change_contrasts(found)
    if not contrasts:
        return None
    gains: dict[str, list[float]] = {}
    for contrast in contrasts:
        gains.setdefault(contrast.first.changed, []).append(contrast.difference.value)
    names = sorted(gains, key=lambda name: -np.mean(gains[name]))
    reach = 2 * max(abs(value) for values in gains.values() for value in values) or 1.0  # two seeds' intervals go beyond
    figure, (panel,) = grid(1)
    figure.set_size_inches(8, 1.2 + 0.28 * len(names))
    lines = lines_by([contrast.first for contrast in contrasts], "er_p")
    by_setting = {id(contrast.first): contrast.difference for contrast in contrasts}
    for index, line in enumerate(lines):
        shift = 0.2 * (index - (len(lines) - 1) / 2)
        differences = [by_setting[id(setting)] for setting in line]
        panel.errorbar([difference.value for difference in differences],
                       [names.index(setting.changed) + shift for setting in line],
                       xerr=[difference.half or 0 for difference in differences], linestyle="none", capsize=2, markersize=4,
                       color=COLOURS[index % 8], marker=MARKERS[index % 8], label=f"p = {line[0].config.source.er_p:g}")
    panel.axvline(0, color=BLACK, linewidth=0.8)
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    low, high = panel.get_xlim()
    panel.set(xlabel="difference to the usual setting (percentage points, paired over seeds)", xlim=(max(low, -reach),
                                                                                                     min(high, reach)))
    legend(figure, panel)
    return figure


def _references(panel: Axes, group: Sequence[Setting], label: bool) -> None:
    """The dense network as a level, other controls as their mean over the settings of like final density."""
    level = next((setting.control("dense_trained") for setting in group if setting.controls["dense_trained"]), None)
    if level:
        panel.axhline(level.value, color=BLACK, linewidth=0.8, label="dense, weights trained" if label else None)
    for role, (colour, style) in REFERENCES.items():
        points = sorted((setting.final_density, setting.control(role).value) for setting in group if setting.controls[role])
        if points:
            panel.plot(*zip(*_merge_close(points), strict=True), color=colour, linestyle=style, linewidth=1,
                       label=CONTROLS[role].title if label else None)


def _merge_close(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points within 3% of each other's density become their mean."""
    merged: list[list[tuple[float, float]]] = []
    for point in points:
        if merged and point[0] < 1.03 * merged[-1][0][0]:
            merged[-1].append(point)
        else:
            merged.append([point])
    return [(float(np.mean([x for x, _ in part])), float(np.mean([y for _, y in part]))) for part in merged]


def sparse_against_dense(found: Sequence[Setting]) -> Figure | None:
    """What starting inside an ER network costs: paired differences at equal final density."""
    contrasts = source_contrasts(found)
    if not contrasts:
        return None
    figure, (panel,) = grid(1)
    densities = sorted({contrast.first.config.source.er_p for contrast in contrasts}, reverse=True)
    for index, er_p in enumerate(densities):
        mine = [contrast for contrast in contrasts if contrast.first.config.source.er_p == er_p]
        points = [(contrast.first.final_density * 1.02**index, contrast.difference.value, contrast.difference.half or 0)
                  for contrast in mine]
        x, y, half = zip(*sorted(points), strict=True)
        panel.errorbar(x, y, half, fmt=MARKERS[index % 8], color=COLOURS[index % 8], capsize=2, markersize=4,
                       label=f"p = {er_p:g}")
    panel.axhline(0, color=BLACK, linewidth=0.8)
    log_density(panel, "final density (realised)", [contrast.first for contrast in contrasts])
    panel.set(ylabel="ER source minus dense source\n(percentage points)", title="equal final density, paired over seeds")
    legend(figure, panel, title="ER source with")
    return figure


def layer_densities(found: Sequence[Setting]) -> Figure | None:
    """p_l of the source and the kept density, layer by layer, for each layerwise density (at the middle p and k)."""
    middle = found[len(found) // 2].config.source
    chosen = [setting for setting in found if setting.config.source.er_p == middle.er_p and setting.config.source.k == middle.k]
    figure, (left, right) = grid(2)
    unlike = {json.dumps(setting.runs[0].result["layers"]): setting for setting in reversed(chosen)}  # first of equal ones
    for index, setting in enumerate([setting for setting in chosen if setting in unlike.values()][:8]):
        layers = setting.runs[0].result["layers"]
        label = setting.label(("er_p", "k")) or setting.config.source.density
        for panel, values in ((left, [row["edges"] / row["entries"] for row in layers]),
                              (right, [row["density"] for row in layers])):
            panel.plot(range(1, len(values) + 1), values, color=COLOURS[index], marker=MARKERS[index], markersize=3, label=label)
    left.set(xlabel="layer", ylabel="edges / entries", title=f"source, p = {middle.er_p:g}")
    right.set(xlabel="layer", ylabel="kept / entries", title=f"ticket, k = {middle.k:g}")
    for panel in (left, right):
        shown = [value for line in panel.lines for value in line.get_ydata() if value > 0]  # a layer may have no edge
        panel.set(yscale="log", ylim=(min(min(shown) / 1.3, max(shown) / 10), min(1.1, max(shown) * 1.5)))
        panel.xaxis.get_major_locator().set_params(integer=True)
    legend(figure, left)
    return figure


def training_curves(found: Sequence[Setting]) -> Figure | None:
    """Test accuracy by epoch, mean over seeds, for at most eight settings spread over the grid."""
    return curves(found, "test_accuracy", "")


def heat_map(found: Sequence[Setting]) -> Figure | None:
    """Mean accuracy over p and k."""
    panels = groups(found, ("er_p", "k"))[:PANELS]
    ps, ks = (sorted({getattr(setting.config.source, name) for setting in found}) for name in ("er_p", "k"))
    if len(ps) < 2 or len(ks) < 2 or len(ps) * len(ks) > 200:
        return None
    figure, axes = grid(len(panels))
    values = [setting.accuracy.value for setting in found]
    for panel, group in zip(axes, panels, strict=True):
        cells = np.full((len(ks), len(ps)), np.nan)
        for setting in group:
            cells[ks.index(setting.config.source.k), ps.index(setting.config.source.er_p)] = setting.accuracy.value
        image = panel.imshow(cells, origin="lower", aspect="auto", cmap="cividis", vmin=min(values), vmax=max(values))
        for (row, column), value in np.ndenumerate(cells):
            dark = value < (min(values) + max(values)) / 2
            panel.text(column, row, "" if np.isnan(value) else f"{value:.1f}", ha="center", va="center", fontsize=7,
                       color="white" if dark else "black")
        panel.set_xticks(range(len(ps)), [f"{p:g}" for p in ps])
        panel.set_yticks(range(len(ks)), [f"{k:.3g}" for k in ks])
        panel.set(xlabel="ER density p", ylabel="kept fraction k of the edges", title=group_title(group, ("er_p", "k")))
    figure.colorbar(image, ax=list(axes), label=f"{measured_on(found)} accuracy (%)")
    return figure


FIGURES: dict[str, tuple[str, Callable[[Sequence[Setting]], Any]]] = {
    "accuracy": ("Accuracy against final density", density_curve),
    "compared": ("What is compared, against final density", compared),
    "changes": ("What a change does to the usual setting", changes),
    "sparse_against_dense": ("ER source against dense source at equal final density", sparse_against_dense),
    "heat_map": ("Accuracy over p and k", heat_map),
    "layers": ("Layerwise densities", layer_densities),
    "training": ("Training curves", training_curves),
}

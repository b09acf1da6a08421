"""The pictures of a comparison, as matplotlib Figures. A new one is a function and a line in PICTURES.

Every function takes the settings and a sheet, and returns figures: none where they have nothing to show it with, or in their
place the sentence that says as much as a picture of one point would.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from popup.lab.report.axes import (
    WIDE,
    Sheet,
    bars,
    entitle,
    group_title,
    legend,
    line_of,
    lines_by,
    paged,
    values_of,
)
from popup.lab.report.captions import Drawn, Picture, intervals
from popup.lab.report.comparison import AXES, Setting, measured_on, show, weights_of
from popup.lab.report.contrast_figures import changes, changes_said, sparse_against_dense
from popup.lab.report.curves import curves_said, training_curves
from popup.lab.report.layer_figures import layer_densities, layers_said
from popup.lab.report.look import BROWN, GREY, INK, SKY
from popup.lab.report.references import dense_levels, references
from popup.lab.report.scales import aside, log_density, measure_axis, reach
from popup.lab.report.sizes import by_bytes
from popup.lab.runs.controls import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCES = {"er_trained": (BROWN, "--"), "random_trained": (INK, "--"), "random": (INK, ":"), "redrawn": (GREY, ":"),
              "ticket_trained": (SKY, "--"), "magnitude_trained": (INK, "-.")}


def density_curve(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Accuracy against the final density, a line for each p with bars of its intervals, controls as reference lines."""
    shown = [setting for setting in found if not setting.changed]
    if len(shown) < 2:
        return []
    made = references(shown, REFERENCES)
    factor, name, title = _line_of(shown)
    values = values_of(shown, factor)
    low, high = reach([setting.accuracy for setting in shown] + [point.mean for one in made for point in one.points]
                      + dense_levels(shown), shown[0].measure)

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            _draw_references(panel, group)
            for colour, marker, line in lines_by(group, factor, values):
                beside = aside(values.index(line[0].value(factor)), len(values))
                bars(panel, [beside * setting.final_density for setting in line], [setting.accuracy for setting in line],
                     colour, marker, f"{name} = {line[0].value(factor):.3g}")
            log_density(panel, shown, [point.density for one in made for point in one.points])
            entitle(panel, group_title(group, AXES))
            measure_axis(panel, group, low, high)
        legend(figure, axes, sheet, title, [f"{name} = {value:.3g}" for value in values])

    return paged(shown, AXES, sheet, draw)


def _line_of(found: Sequence[Setting]) -> tuple[str, str, str]:
    """What a line is of: field, symbol and the legend's title."""
    if line_of(found) == "er_p":
        return "er_p", "p", "ticket from an ER source with"
    several = len({setting.value("er_p") for setting in found}) > 1
    return "k", "k", "ticket, of sources of several p, with" if several else "ticket with"


def _draw_references(panel: Axes, group: Sequence[Setting]) -> None:
    """The dense network as a level, other controls at their own densities."""
    for level in dense_levels(group):
        panel.axhline(level.value, color=INK, linewidth=0.8, label="dense, weights trained")
        half = level.half or 0
        panel.axhspan(level.value - half, min(group[0].measure.most, level.value + half), color=INK, alpha=0.07, linewidth=0)
    for one in references(group, REFERENCES):
        colour, style = REFERENCES[one.role]
        bars(panel, [point.density for point in one.points], [point.mean for point in one.points], colour,
             "D" if len(one.points) == 1 else "", CONTROLS[one.role].title, style)


def _controls_said(found: Sequence[Setting]) -> str:
    """What the caption says of the controls that are drawn, if any are."""
    made = references([setting for setting in found if not setting.changed], REFERENCES)
    merged = " (means over the sources of like density, whatever their p)" if any(one.merged for one in made) else ""
    return f"; controls at the density that they have{merged}" if made else ""


def compared(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Accuracy against the final density, a line for each value of what varies beside p and k: the methods, or else the
    factor with the most values."""
    varied = {name: len(values_of(found, name)) for name in found[0].factors if name not in AXES}
    if not varied or found[0].usual:
        return []
    factor = max(varied, key=lambda name: (name == "method", varied[name]))
    across = ("k",) if {"er_p", "k"} <= found[0].factors.keys() else AXES
    values = values_of(found, factor)
    low, high = reach([setting.accuracy for setting in found], found[0].measure)

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            for colour, marker, line in lines_by(group, factor, values):
                beside = aside(values.index(line[0].value(factor)), len(values))
                bars(panel, [beside * setting.final_density for setting in line], [setting.accuracy for setting in line],
                     colour, marker, show(line[0].value(factor)))
            log_density(panel, found)
            entitle(panel, group_title(group, (factor, *across)))
            measure_axis(panel, group, low, high)
        legend(figure, axes, sheet, "layerwise density" if factor == "density" else factor, [show(value) for value in values])

    return paged(found, (factor, *across), sheet, draw)


def heat_map(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Mean accuracy over p and k."""
    ps, ks = (sorted({setting.value(name) for setting in found}) for name in AXES)
    if len(ps) < 2 or len(ks) < 2 or len(ps) * len(ks) > 200:
        return []
    accuracies = [setting.accuracy.value for setting in found]
    low, high, measure = min(accuracies), max(accuracies), found[0].measure

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        images = []
        for panel, group in zip(axes, groups, strict=True):
            cells = np.full((len(ks), len(ps)), np.nan)
            for setting in group:
                cells[ks.index(setting.value("k")), ps.index(setting.value("er_p"))] = setting.accuracy.value
            images.append(panel.imshow(cells, origin="lower", aspect="auto", cmap="cividis", vmin=low, vmax=high))
            for (row, column), value in np.ndenumerate(cells):
                text = "" if np.isnan(value) else f"{value:.{measure.digits}f}"
                panel.text(column, row, text, ha="center", va="center", fontsize=7,
                           color="#fefefe" if value < (low + high) / 2 else "#010101")  # of the cell, by day and by night
            panel.set_xticks(range(len(ps)), [f"{p:g}" for p in ps])
            panel.set_yticks(range(len(ks)), [f"{k:.3g}" for k in ks])
            panel.set(xlabel="ER density p", ylabel="kept fraction k of the edges")
            entitle(panel, group_title(group, AXES))
        figure.colorbar(images[-1], ax=list(axes), label=f"{measured_on(found)} {measure.name} ({measure.unit.strip()})")

    return paged(found, AXES, sheet, draw)


STRETCHED = "The vertical axis is logarithmic in the errors: 98 and 99% part as 80 and 90% do."


def _measured(found: Sequence[Setting]) -> str:
    """What is measured, in words."""
    return f"{measured_on(found)} {found[0].measure.name}"


def _stretched(found: Sequence[Setting]) -> str:
    """What the caption says of the vertical axis."""
    return STRETCHED if found[0].measure.most < inf else ""


BESIDE = "Points of one density stand up to 2% beside it."

MAIN = "accuracy"  # whose file bears the name of what is measured
PICTURES: dict[str, Picture] = {
    MAIN: Picture("{} against final density", density_curve, lambda found: (
        f"Mean {_measured(found)} at the last epoch against the fraction of all {weights_of(found)} that is kept, as realised"
        f"{_controls_said(found)}. {intervals(found)} {BESIDE} {_stretched(found)}")),
    "compared": Picture("What is compared, against final density", compared, lambda found: (
        f"Mean {_measured(found)} at the last epoch. {intervals(found)} {BESIDE} {_stretched(found)}")),
    "bytes": Picture("{} against the bytes of the ticket", by_bytes, lambda found: (
        f"Mean {_measured(found)} at the last epoch. {intervals(found)} {_stretched(found)}")),
    "changes": Picture("What a change does to the usual setting", changes, lambda found: (
        f"Differences of {_measured(found)}, paired over seeds. {changes_said(found)}")),
    "sparse_against_dense": Picture("ER source against dense source at equal p k", sparse_against_dense, lambda found: (
        f"Differences of {_measured(found)} at equal p k, paired over seeds: {found[0].measure.better} 0 the ER source is "
        f"better. {intervals(found)} {BESIDE}")),
    "heat_map": Picture("{} over p and k", heat_map, lambda found: (
        f"Mean {_measured(found)} at the last epoch, without intervals: those are in the table.")),
    "layers": Picture("Layer by layer", layer_densities, layers_said),
    "training": Picture("Training curves", training_curves, curves_said),
}

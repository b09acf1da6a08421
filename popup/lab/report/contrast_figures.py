"""The pictures of contrasts: what a change does, and what starting inside an ER network costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from popup.lab.report.axes import (
    WIDE,
    Sheet,
    entitle,
    group_title,
    legend,
    lines_by,
    paged,
    values_of,
)
from popup.lab.report.captions import Drawn, intervals
from popup.lab.report.comparison import AXES, Setting
from popup.lab.report.contrasts import Contrast, change_contrasts, source_contrasts
from popup.lab.report.look import COLOURS, INK, MARKERS
from popup.lab.report.scales import SMALL, aside, log_density
from popup.lab.report.statistics import Mean
from popup.lab.report.tables import wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 3  # differences that are told in words: each would be a picture of one point


def changes(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Where a few things were changed at a time: what each change adds to the usual setting, for each p (and each k)."""
    contrasts = change_contrasts(found)
    if not contrasts:
        return []
    if len(contrasts) <= FEW:
        return " ".join(f"By {_label(one.first)} {_told(one)} than by the usual setting." for one in contrasts)
    gains: dict[str, list[float]] = {}
    for contrast in contrasts:
        gains.setdefault(contrast.first.changed, []).append(contrast.difference.value)
    names = sorted(gains, key=lambda name: -np.mean(gains[name]))
    reach = _reach(contrasts)
    figure, (panel,) = sheet.grid(1)
    cases = sorted({_case(contrast.first) for contrast in contrasts}, reverse=True)
    labels = [wrap(name, 44 if sheet.beside else 16) for name in names]
    rows = max(0.28, 0.1 * len(cases), 0.16 * max(len(label.splitlines()) for label in labels))  # inches
    figure.set_size_inches(sheet.widths[0], 1.2 + len(names) * rows)
    for index, case in enumerate(cases):
        shift = 0.7 * ((index + 0.5) / len(cases) - 0.5)
        mine = [contrast for contrast in contrasts if _case(contrast.first) == case]
        panel.errorbar([contrast.difference.value for contrast in mine],
                       [names.index(contrast.first.changed) + shift for contrast in mine],
                       xerr=[contrast.difference.half or 0 for contrast in mine], linestyle="none", capsize=2, markersize=4,
                       color=COLOURS[index % 8], marker=MARKERS[(index + index // 8) % 8],
                       label=", ".join(f"{name} = {value:.3g}" for name, value in zip("pk", case, strict=True)))
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.set_yticks(range(len(names)), labels)
    panel.set_ylim(len(names) - 0.5, -0.5)
    low, high = panel.get_xlim()
    panel.set_xlabel(wrap(f"difference to the usual setting ({contrasts[0].first.measure.difference})",
                          int(7 * sheet.widths[0])), fontsize=SMALL)
    panel.set_xlim(max(low, -reach), min(high, reach))
    legend(figure, [panel], sheet)
    return [figure]


def changes_said(found: Sequence[Setting]) -> str:
    """The caption's sentence on intervals, and on those that the picture does not hold."""
    contrasts = change_contrasts(found)
    reach = _reach(contrasts) if contrasts else 0.0
    longer = any(abs(one.difference.value) + (one.difference.half or 0) > reach for one in contrasts)
    return intervals(found) + " Longer ones are cut at its edges." * longer


def _reach(contrasts: Sequence[Contrast]) -> float:
    """How far the axis goes at most to either side; two seeds' intervals go beyond."""
    return 3 * max(abs(one.difference.value) for one in contrasts) or 1.0


def _case(setting: Setting) -> tuple[float, float]:
    return setting.value("er_p"), setting.value("k")


def sparse_against_dense(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """What starting inside an ER network costs: paired differences at equal p k, a colour for each p, a panel for what else
    tells the sources apart."""
    contrasts = source_contrasts(found)
    if not contrasts:
        return []
    if len(contrasts) <= FEW:
        return " ".join(f"From an ER source ({_label(one.first)}) {_told(one)} than from a dense one at equal p k."
                        for one in contrasts)
    firsts = [contrast.first for contrast in contrasts]
    values = values_of(firsts, "er_p")
    reach = [contrast.difference.value + side * (contrast.difference.half or 0) for contrast in contrasts for side in (-1, 1)]
    spare = 0.05 * (max(*reach, 0) - min(*reach, 0)) or 1.0

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            for colour, marker, line in lines_by(group, "er_p", values):
                place = values.index(line[0].value("er_p"))
                mine = [contrast for contrast in contrasts if contrast.first in line]
                panel.errorbar([contrast.first.final_density * aside(place, len(values)) for contrast in mine],
                               [contrast.difference.value for contrast in mine],
                               [contrast.difference.half or 0 for contrast in mine], fmt=marker, color=colour, capsize=2,
                               markersize=4, label=f"p = {values[place]:g}")
            panel.axhline(0, color=INK, linewidth=0.8)
            log_density(panel, firsts)
            panel.set(ylim=(min(*reach, 0) - spare, max(*reach, 0) + spare))
            panel.set_ylabel(f"ER source minus dense source\n({firsts[0].measure.difference})", fontsize=SMALL)
            entitle(panel, group_title(group, AXES))
        legend(figure, axes, sheet, "ER source with", [f"p = {p:g}" for p in values])

    return paged(firsts, AXES, sheet, draw)


def _told(contrast: Contrast) -> str:
    """A difference with its interval, in words."""
    difference = contrast.difference
    measure = contrast.first.measure
    text = Mean(abs(difference.value), difference.half, difference.count).text(measure.digits + 1)
    return f"{measure.name} is {text} {measure.points} {'higher' if difference.value >= 0 else 'lower'}"


def _label(setting: Setting) -> str:
    return setting.label().replace("er_p", "p")

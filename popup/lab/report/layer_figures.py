"""Layers from top to bottom, by their names: densities, edges of their units, units without any. Of rules side by side
(`run.py densities`), and of the settings of a report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from popup.errors import UsageError
from popup.lab.report.axes import WIDE, Sheet, legend, note, short_label
from popup.lab.report.captions import Drawn
from popup.lab.report.comparison import AXES, Setting
from popup.lab.report.cuts import UNLESS, cut_layers
from popup.lab.report.look import COLOURS, MARKERS
from popup.lab.report.results import Run
from popup.lab.report.scales import SMALL, plain_log
from popup.lab.runs.directory import TICKET_FILE
from popup.source.degrees import Degrees, count_degrees
from popup.source.layer_source import draw_edges
from popup.ticket.ticket import Ticket, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST = 1 << 26  # weights of a network whose edges a report draws again to count those of each unit
READ = ("Filled: the source's edges as drawn; strokes: what is asked for, and expected of an ER mask. Bars go from the least to "
        "the most edges of a unit. The last panel has dead units, which no edge comes into (filled), and inputs that none goes "
        "out of (open).")
CUT = 3           # layers without an edge that a caption tells of
NAMED = 60         # layers that have a name each beside a picture; of more of them every second, third, ... has


@dataclass(frozen=True)
class Line:
    """One source by layers: the p_l asked for, edges / entries as drawn, and of a ticket kept / entries; and the degrees of its
    weights, if they are known."""

    label: str
    names: tuple[str, ...]
    asked: tuple[float, ...]
    drawn: tuple[float, ...]
    kept: tuple[float, ...] = ()
    degrees: tuple[Degrees, ...] = field(default=(), compare=False)


def layer_densities(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """The source's layers, and the ticket's densities, for each layerwise density: at the median of the p below 1, where these
    differ, and of the k at that p."""
    er_p = _median([setting.value("er_p") for setting in found if setting.value("er_p") < 1] or [1.0])
    k = _median([setting.value("k") for setting in found if setting.value("er_p") == er_p])
    chosen = [setting for setting in found if (setting.value("er_p"), setting.value("k")) == (er_p, k)]
    unlike = {json.dumps(setting.runs[0].found["layers"]): setting for setting in reversed(chosen)}  # first of equal ones
    lines = [setting for setting in chosen if setting in unlike.values()]
    shown = [_line(setting.runs[0], short_label(setting, AXES) if len(lines) > 1 else setting.config.source.density)
             for setting in lines[:len(COLOURS)]]
    figure = draw_layers(shown, sheet)
    words = f"source of p = {er_p:g}, ticket of k = {k:g}"
    note(figure, words + (f"; {len(COLOURS)} of {len(lines)} settings" if len(lines) > len(COLOURS) else ""))
    return [figure]


def layers_said(found: Sequence[Setting]) -> str:
    """The caption, and which layers of which settings have no edge."""
    cut = {name: setting for setting in found for run in setting.runs for name in cut_layers(run.config, run.found)}
    said = "".join(f" No edge was drawn in {name} ({short_label(setting)}): the network is cut there{UNLESS}."
                   for name, setting in list(cut.items())[:CUT])
    several = len({(setting.value("er_p"), setting.value("k")) for setting in found}) > 1
    where = " Of one seed, at the median of the p below 1 and of the k at that p." if several else " Of one seed."
    return f"{READ}{where} Open markers of densities are what the ticket keeps.{said}"


def _line(run: Run, label: str) -> Line:
    """A run's layers, with the degrees of its source where its ticket can be read."""
    rows = run.found["layers"]
    names = tuple(row.get("name", str(place)) for place, row in enumerate(rows, 1))
    drawn = tuple(row["edges"] / row["entries"] for row in rows)
    return Line(label, names, tuple(row.get("p_l", p) for row, p in zip(rows, drawn, strict=True)), drawn,
                tuple(row["density"] for row in rows), _degrees_of(run))


def _degrees_of(run: Run) -> tuple[Degrees, ...]:
    if sum(row["entries"] for row in run.found["layers"]) > LARGEST:
        return ()
    try:
        ticket = load(run.path / TICKET_FILE)
        return _counted(ticket) if [row.get("name") for row in run.found["layers"]] == [one.name for one in ticket.specs] else ()
    except (UsageError, OSError):
        return ()


def _counted(ticket: Ticket) -> tuple[Degrees, ...]:
    """The degrees of a ticket's weights; of a bias there are none."""
    if sum(layer.entries for layer in ticket.specs) > LARGEST:
        return ()
    return tuple(count_degrees(layer.spec, layer.p_l, draw_edges(ticket.recipe, layer.spec, layer.p_l)
                               if layer.edges is None else layer.edges, ticket.recipe.connected)
                 for layer in ticket.layers if layer.spec.weight is None)


def draw_layers(lines: Sequence[Line], sheet: Sheet) -> Figure:
    """Panels beside each other, or below each other on a narrow sheet, that share the layers."""
    names = tuple(dict.fromkeys(name for line in lines for name in line.names))  # of several networks all
    measures: list[tuple[str, Callable[[Axes, Line, str, str, np.ndarray], None]]] = [("edges / entries (p_l)", _densities)]
    if any(line.kept for line in lines):
        measures[0] = ("edges (filled), kept (open) / entries", _densities)
    if all(line.degrees for line in lines):
        measures += [("edges into a unit", _into), ("edges out of a unit", _out), ("units without an edge (%)", _without)]
    height = min(12.0, max(1.6, len(names) * min(0.5, max(0.13, 0.05 + 0.06 * len(lines)))) + 0.7)
    figure, axes = (replace(sheet, widths=sheet.widths[:1] * 4) if sheet is WIDE else sheet).grid(len(measures), height)
    places = {name: place for place, name in enumerate(names)}
    labels = short_names(names, 26 if sheet is WIDE else 22)
    step = -(-len(names) // NAMED)
    for number, (panel, (title, draw)) in enumerate(zip(axes, measures, strict=True)):
        for index, line in enumerate(lines):
            own = line.names if draw is _densities else [one.layer.name for one in line.degrees]
            shift = 0.6 * ((index + 0.5) / len(lines) - 0.5)
            draw(panel, line, COLOURS[index % 8], MARKERS[index % 8], np.array([places[name] + shift for name in own]))
        panel.set_xlabel(title, fontsize=SMALL)
        panel.set_ylim(len(names) - 0.5, -0.5)
        bare = sheet is WIDE and number > 0
        panel.set_yticks(range(0, len(names), step), ["" if bare else label for label in labels[::step]],
                         fontsize=7 if height < 12 else 5.5)
        panel.grid(axis="y", linewidth=0.3, alpha=0.5)
    if len(axes) > 2:  # the same scale of what comes in and goes out
        low, high = (limit(panel.get_xlim()[side] for panel in axes[1:3]) for side, limit in ((0, min), (1, max)))
        for panel in axes[1:3]:
            panel.set_xlim(low, high)
            ticks = [0.0, *(10.0**power for power in range(9) if 10**power <= high)]
            panel.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    legend(figure, axes[:1], sheet)
    return figure


def _densities(panel: Axes, line: Line, colour: str, marker: str, y: np.ndarray) -> None:
    panel.plot(line.drawn, y, marker=marker, markersize=3.5, linewidth=0.9, color=colour, label=line.label)
    panel.plot(line.asked, y, marker="|", markersize=8, linestyle="", color=colour)
    if line.kept:
        panel.plot(line.kept, y, marker=marker, markersize=3.5, fillstyle="none", linewidth=0.9, linestyle=":", color=colour)
    drawn = [np.asarray(each.get_xdata(), dtype=float) for each in panel.lines]
    shown = [value for values in drawn for value in values if value > 0]  # a layer may have no edge
    if shown:
        panel.set(xscale="log", xlim=(max(min(shown) / 1.3, max(shown) / 1e4), min(1.15, max(shown) * 1.5)))
        plain_log(panel.xaxis, most=5)  # a quarter of a picture's width has room for no more


def _into(panel: Axes, line: Line, colour: str, marker: str, y: np.ndarray) -> None:
    _spread(panel, [one.into for one in line.degrees], [one.expected_into for one in line.degrees], colour, marker, y)


def _out(panel: Axes, line: Line, colour: str, marker: str, y: np.ndarray) -> None:
    _spread(panel, [one.out for one in line.degrees], [one.expected_out for one in line.degrees], colour, marker, y)


def _spread(panel: Axes, counts: Sequence[np.ndarray], expected: Sequence[float], colour: str, marker: str,
            y: np.ndarray) -> None:
    """From the least to the most edges that a unit has, the mean as a marker, and what is expected as a stroke."""
    means = np.array([count.mean() for count in counts])
    reach = [means - [count.min() for count in counts], [count.max() for count in counts] - means]
    panel.errorbar(means, y, xerr=reach, color=colour, marker=marker, markersize=3, linestyle="", elinewidth=0.8)
    panel.plot(expected, y, marker="|", markersize=8, linestyle="", color=colour)
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(left=0)


def _without(panel: Axes, line: Line, colour: str, marker: str, y: np.ndarray) -> None:
    """Outputs that no edge comes into (filled), inputs that none goes out of (open), and what is expected."""
    for counts, expected, sizes, fill in (
            ([one.unfed for one in line.degrees], [one.expected_unfed for one in line.degrees],
             [len(one.into) for one in line.degrees], "full"),
            ([one.unheard for one in line.degrees], [one.expected_unheard for one in line.degrees],
             [len(one.out) for one in line.degrees], "none")):
        panel.plot(100 * np.divide(counts, sizes), y, marker=marker, markersize=3.5, fillstyle=fill, linestyle="", color=colour)
        panel.plot(100 * np.divide(expected, sizes), y, marker="|", markersize=8, linestyle="", color=colour)
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(-0.15, 110)
    panel.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])


def short_names(names: Sequence[str], limit: int) -> list[str]:
    """Layers' names without the word weight, of at most `limit` letters; what is cut has its number for a name's beginning."""
    plain = [name.removesuffix(".weight") if re.search("[a-z]", name.removesuffix(".weight")) else name for name in names]
    return [name if len(name) <= limit else f"{place} …{name[-(limit - len(str(place)) - 2):]}"
            for place, name in enumerate(plain, 1)]


def _median(values: Sequence[float]) -> float:
    """The one in the middle of the distinct values."""
    distinct = sorted(set(values))
    return distinct[len(distinct) // 2]

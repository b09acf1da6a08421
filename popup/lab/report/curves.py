"""Curves by epoch: losses and accuracy of a search, and measures of its masks."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from popup.lab.report.axes import WIDE, Sheet, legend, note, short_label
from popup.lab.report.captions import Drawn
from popup.lab.report.comparison import Setting, measured_on
from popup.lab.report.look import COLOURS
from popup.lab.report.results import Run
from popup.lab.report.scales import measure_axis, plain_log, reach, whole_numbers
from popup.lab.report.statistics import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BY_EPOCH = "Loss{} by epoch{}."
LOSSES = (("test_loss", "-"), ("train_loss", "--"))
ONE = "Runs of one epoch have no curve."


def least_loss(smoothing: float, classes: int) -> float:
    """The entropy of smoothed targets: what the best network's training loss is, in nats. What a loss is above it is the
    divergence from its targets, as a loss of targets without smoothing is by itself."""
    right, wrong = 1 - smoothing + smoothing / classes, smoothing / classes
    return -(right * log(right) + (classes - 1) * (wrong * log(wrong) if wrong else 0.0))


def training_curves(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Losses (of training dashed) and accuracy by epoch, means over seeds; where a loss is what is measured, in its unit."""
    chosen = _spread(found)
    histories = {id(setting): [run.metrics() for run in setting.runs] for setting in chosen}
    if all(len(rows) == 1 for runs in histories.values() for rows in runs):
        return ONE
    measure = found[0].measure
    figure, panels = sheet.grid(1 if measure.a_nat else 2)
    left, right = panels[0], panels[-1]
    for colour, setting in zip(COLOURS, chosen, strict=False):
        for column, style in LOSSES[bool(measure.a_nat):]:
            losses = [_losses(run, rows, column) for run, rows in zip(setting.runs, histories[id(setting)], strict=True)]
            if all(losses):
                _line(left, [[(measure.a_nat or 1) * loss for loss in run] for run in losses], colour, style, None)
        values = [[row[measure.column] for row in rows] for rows in histories[id(setting)]]
        _line(right, values, colour, "-", short_label(setting))
    dashed = ", training dashed" * any(line.get_linestyle() == "--" for line in left.lines)
    if left is not right:
        left.set(ylabel=f"{measured_on(found)} loss (nats){dashed}", yscale="log")
        plain_log(left.yaxis)
    shown = [Mean(float(value), None, 1) for line in right.lines for value in np.asarray(line.get_ydata())]
    measure_axis(right, found, *reach(shown, measure))
    if left is right:
        right.set_ylabel(right.get_ylabel() + dashed)
    if not left.lines:
        left.remove()
    _finish([panel for panel in (left, right) if panel in figure.axes])
    if len(chosen) < len(found):
        note(figure, f"{len(chosen)} of {len(found)} settings, spread over the grid")
    legend(figure, [right] if chosen[1:] else [], sheet)
    return [figure]


def curves_said(found: Sequence[Setting]) -> str:
    """The caption: what makes the two losses comparable, where both are drawn."""
    measure = found[0].measure
    means = ", means over seeds" if max(setting.accuracy.count for setting in found) > 1 else ""
    said = BY_EPOCH.format("" if measure.a_nat else f" and {measure.name}", means)
    if not any(_least(run, "train_loss") for setting in _spread(found) for run in setting.runs):
        return said
    return (f"{said} Both losses are the divergence from their targets, which is 0 at best: of the training loss the least "
            "that label smoothing leaves is taken off.")


def curves(found: Sequence[Setting], column: str, name: str, yscale: str, sheet: Sheet) -> Drawn:
    """A measure by epoch, mean over seeds, of at most as many settings as there are colours, spread over those whose runs have
    recorded it."""
    found = [setting for setting in found if all(row.get(column) is not None for run in setting.runs for row in run.metrics())]
    if not found:
        return []
    chosen = _spread(found)
    histories = [[[row[column] for row in run.metrics()] for run in setting.runs] for setting in chosen]
    if all(len(history) == 1 for runs in histories for history in runs):
        return ONE
    figure, (panel,) = sheet.grid(1)
    for colour, setting, mine in zip(COLOURS, chosen, histories, strict=False):
        _line(panel, mine, colour, "-", short_label(setting))
    panel.set(ylabel=name, yscale=yscale)
    if yscale == "log":
        plain_log(panel.yaxis)
    _finish([panel])
    if len(chosen) < len(found):
        note(figure, f"{len(chosen)} of {len(found)} settings, spread over the grid")
    legend(figure, [panel], sheet)
    return [figure]


def _spread(found: Sequence[Setting]) -> list[Setting]:
    """As many settings as there are colours, from all over the grid."""
    places = sorted({round(place) for place in np.linspace(0, len(found) - 1, min(len(COLOURS), len(found)))})
    return [found[place] for place in places]


def _losses(run: Run, rows: Sequence[dict[str, Any]], column: str) -> list[float]:
    """A run's losses above the least that is possible; none if that is not known."""
    least = _least(run, column)
    if least is None or any(row.get(column) is None for row in rows):
        return []
    return [max(row[column] - least, 1e-6) for row in rows]


def _least(run: Run, column: str) -> float | None:
    """The least loss that is possible; None of a result of before, which does not say how many classes there are."""
    smoothing, classes = run.config.training.label_smoothing, run.found.get("classes")
    if column == "test_loss" or not smoothing:
        return 0.0
    return least_loss(smoothing, classes) if classes else None


def _line(panel: Axes, histories: Sequence[Sequence[float]], colour: str, style: str, label: str | None) -> None:
    """The mean of several histories, as far as all of them go."""
    means = np.mean([history[:min(map(len, histories))] for history in histories], axis=0)
    panel.plot(range(1, len(means) + 1), means, color=colour, linewidth=1.2, linestyle=style, label=label,
               marker="." if len(means) == 1 else "")


def _finish(panels: Sequence[Axes]) -> None:
    for panel in panels:
        panel.set(xlabel="epoch")
        whole_numbers(panel.xaxis)

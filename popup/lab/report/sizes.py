"""Accuracy against the bytes that a ticket takes. At one density a ticket whose edges have more codes takes more of them, so that
methods of different code books are to be compared at equal bytes too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from popup.lab.report.axes import WIDE, Sheet, bars, entitle, group_title, legend, line_of, lines_by, paged, values_of
from popup.lab.report.captions import Drawn
from popup.lab.report.cells import difference_cells, unsure
from popup.lab.report.comparison import AXES, Setting, panels, show
from popup.lab.report.scales import SMALL, measure_axis, reach, round_ticks
from popup.lab.report.statistics import Difference, holm, mean, paired
from popup.search.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHOD = "method"
NEAR = 1.03  # tickets of one density take a little more with one seed than with another


@dataclass(frozen=True)
class AtSize:
    """Two methods' tickets of `size` bytes: accuracies by seed, between those that were measured, and their paired difference;
    `first` has the best mean at this size, `adjusted` is Holm's p value over all pairs."""

    group: list[Setting]
    size: float
    first: str
    second: str
    accuracies: tuple[dict[int, float], dict[int, float]]
    difference: Difference
    adjusted: float | None


def sized(found: Sequence[Setting]) -> list[Setting]:
    """The settings to compare by bytes: methods whose edges have not all the same codes, and tickets that say what they take."""
    shown = [setting for setting in found if setting.ticket_bytes and setting.value(METHOD) in METHODS]
    books = {METHODS[setting.value(METHOD)](setting.config.search).book.codes for setting in shown}
    return shown if len(books) > 1 and not shown[0].usual else []


def _within(found: Sequence[Setting]) -> tuple[str, ...]:
    """The factors that vary within a panel."""
    return (METHOD, "k") if line_of(found) == "er_p" else (METHOD, *AXES)


def at_equal_bytes(found: Sequence[Setting]) -> list[AtSize]:
    """The best method against the others at each size that tickets of the first one have, in each panel of the other factors."""
    shown = sized(found)
    cases = [case for group in panels(shown, _within(shown)) for case in _pairs(group)]
    adjusted = iter(holm([case.difference.p_value for case in cases if case.difference.p_value is not None]))
    cases = [case if case.difference.p_value is None else replace(case, adjusted=next(adjusted)) for case in cases]
    best = {(id(case.group), case.size): _best(cases, case) for case in cases}
    turned = [case if case.first == best[id(case.group), case.size] else _turned(case) for case in cases]
    return [case for case in turned if case.first == best[id(case.group), case.size]]


def _pairs(group: list[Setting]) -> Iterator[AtSize]:
    """All pairs of methods at each size of the first one's tickets that both methods' reach over."""
    names = values_of(group, METHOD)
    lines = {name: [setting for setting in group if setting.value(METHOD) == name] for name in names}
    for size in sorted({setting.ticket_bytes or 0.0 for setting in lines[names[0]]}):
        there = {name: curve for name, line in lines.items() if (curve := _at(line, size))}
        for first, second in combinations(there, 2):
            if (difference := paired(there[first], there[second])) is not None:
                yield AtSize(group, size, first, second, (there[first], there[second]), difference, None)


def _at(line: Sequence[Setting], size: float) -> dict[int, float]:
    """By seed the accuracy of a method's tickets of `size` bytes: on the line between the next smaller and the next larger ticket
    of that seed, over the logarithm of bytes. Empty where some seed has not both."""
    found: dict[int, float] = {}
    for seed in set.intersection(*(set(setting.accuracies) for setting in line)):
        points = sorted((run.ticket_bytes or 0, run.accuracy) for setting in line for run in setting.runs if run.seed == seed)
        places, values = zip(*points, strict=True)
        if not places[0] / NEAR <= size <= places[-1] * NEAR:
            return {}
        found[seed] = float(np.interp(np.log(size), np.log(places), values))
    return found


def _best(cases: Sequence[AtSize], like: AtSize) -> str:
    """The method of the best mean at that place."""
    up = like.group[0].measure.up
    means: Mapping[str, float] = {name: up * mean(list(values.values())).value for case in cases
                                  if case.group is like.group and case.size == like.size
                                  for name, values in zip((case.first, case.second), case.accuracies, strict=True)}
    return max(means, key=lambda name: means[name])


def _turned(case: AtSize) -> AtSize:
    """The same with the sides exchanged."""
    return replace(case, first=case.second, second=case.first, accuracies=case.accuracies[::-1],
                   difference=replace(case.difference, value=-case.difference.value))


def size_table(found: Sequence[Setting]) -> tuple[str, list[str], list[list[str]]]:
    """One row a size and method: the best at that size against it, with the interval of the difference and p values."""
    cases = at_equal_bytes(found)
    within = _within(sized(found))
    titles = [group_title(case.group, within) for case in cases]
    elsewhere = any(titles)
    header = ["bytes", *["elsewhere equal"] * elsewhere, "best", "second", "difference", "p", "p (Holm)", "seeds"]
    rows = []
    for case, title in zip(cases, titles, strict=True):
        sides = [f"{show(name)} {mean(list(values.values())).text(case.group[0].measure.digits)}"
                 for name, values in zip((case.first, case.second), case.accuracies, strict=True)]
        rows.append([f"{case.size:,.0f}", *[title] * elsewhere, *sides,
                     *difference_cells(case.difference, case.adjusted, case.group[0].measure)])
    told = ("Methods at equal bytes: the best mean against the others (of the ticket, compressed; between the sizes that were "
            "measured; paired over seeds; Holm over all pairs)")
    return told + unsure([case.difference for case in cases]), header, rows


def by_bytes(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Accuracy against the bytes that tickets take, a line for each method."""
    shown = sized(found)
    if len(shown) < 2:
        return []
    values = values_of(shown, METHOD)
    low, high = reach([setting.accuracy for setting in shown], shown[0].measure)

    def draw(figure: Figure, axes: list[Axes], groups: Sequence[list[Setting]]) -> None:
        for panel, group in zip(axes, groups, strict=True):
            for colour, marker, line in lines_by(group, METHOD, values):
                bars(panel, [setting.ticket_bytes or 0 for setting in line], [setting.accuracy for setting in line], colour,
                     marker, show(line[0].value(METHOD)))
            _log_bytes(panel, [setting.ticket_bytes or 0 for setting in shown])
            entitle(panel, group_title(group, _within(shown)))
            measure_axis(panel, group, low, high)
        legend(figure, axes, sheet, METHOD, [show(value) for value in values])

    return paged(shown, _within(shown), sheet, draw)


def _log_bytes(panel: Axes, sizes: Sequence[float]) -> None:
    """A logarithmic axis of bytes, whose ticks are plain numbers."""
    ticks = round_ticks(0.9 * min(sizes), 1.2 * max(sizes))
    panel.set(xscale="log", xlim=(0.9 * min(sizes), 1.15 * max(sizes)))
    panel.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    panel.set_xlabel("bytes of the ticket, compressed", fontsize=SMALL)
    panel.minorticks_off()

"""Pictures of what existence costs: copies against p and epsilon, and exact representation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log
from typing import TYPE_CHECKING, Any

import numpy as np

from popup.lab.report.look import BLUE, BROWN, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION
from popup.lab.report.pictures import png
from popup.lab.runs.findability import Trial, best_found, best_known
from popup.theory.law import candidates_needed, copies_needed
from popup.theory.measurement import Representation, Requirement, copies_to_represent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BROWN, INK)
MARKERS = "osD^vP*X"
FAR = 1e5  # times the largest gap: an epsilon beyond is not drawn, as nothing else would be seen
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def draw_law(found: Sequence[Requirement], constant: float | None) -> bytes:
    """Least copies against p (a colour an epsilon) and against epsilon (a colour a p), as PNG: measured points, theory's
    shape with its one fitted constant dashed (if there is one), and the copies of as many candidates as `prove` plans with
    dotted."""
    figure, (left, right) = _panels(2)
    ps, epsilons = sorted({row.p for row in found}), sorted({row.epsilon for row in found}, reverse=True)
    fine = np.linspace(ps[0], ps[-1], 200) if len(ps) > 1 else np.array(ps)
    shown = [value for value in epsilons if round(np.log10(value), 6).is_integer()] or epsilons
    for place, epsilon in enumerate(shown):
        points = [(row.p, row.copies) for row in found if row.epsilon == epsilon and row.copies < inf]
        _law_lines(left, place, points, f"ε = {epsilon:g}", constant, [(p, epsilon) for p in fine], fine.tolist())
    for place, p in enumerate([p for p in ps if p in (0.1, 0.3, 0.5, 0.9, 1.0)] or ps):
        points = [(row.epsilon, row.copies) for row in found if row.p == p and row.copies < inf]
        _law_lines(right, place, points, f"p = {p:g}", constant, [(p, epsilon) for epsilon in epsilons], epsilons)
    left.set(xlabel="ER density p", ylabel="copies of a neuron for 95% of parameters", yscale="log")
    right.set(xlabel="error ε allowed to a parameter", ylabel="copies", xscale="log", yscale="log")
    right.invert_xaxis()
    for look, name in (("--", "theory, C fitted"), (":", "prove plans with")):
        right.plot([], [], look, color="gray", linewidth=1, label=name)
    return _finish(figure, (left, right))


def _law_lines(axes: Axes, place: int, points: Sequence[tuple[float, float]], label: str, constant: float | None,
               cases: Sequence[tuple[float, float]], x: Sequence[float]) -> None:
    """Measured `points`, and for the `cases` (p, epsilon), at `x`, theory's curve and the plan's."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.plot([value for value, _ in points], [copies for _, copies in points], marker, color=colour, markersize=4.5, label=label)
    alone = "_" if len(cases) == 1 else None  # a line of one point is seen by its marker alone
    if constant:
        theory = [(value, constant * log(1 / epsilon) / -log(1 - p)) for value, (p, epsilon) in zip(x, cases, strict=True)
                  if p < 0.9995]
        axes.plot([value for value, _ in theory], [copies for _, copies in theory], "--", color=colour, linewidth=1, marker=alone)
    axes.plot(x, [copies_needed(candidates_needed(epsilon), p) for p, epsilon in cases], ":", color=colour, linewidth=1,
              marker=alone)


def draw_findability(trials: Sequence[Trial]) -> bytes:
    """The largest gap of each source's ticket against the source's width, as PNG: what exists filled, what is found open, a line
    through the middle ones, a colour a p."""
    figure, axes = _panels(1)
    for place, p in enumerate(sorted({trial.p for trial in trials})):
        mine, colour, marker = [trial for trial in trials if trial.p == p], COLOURS[place % 8], MARKERS[place % 8]
        widths = sorted({trial.width for trial in mine})
        for gap, look, face, name in ((best_known, "-", colour, "exists"), (best_found, "--", "none", "edge-popup finds")):
            axes.plot([trial.width for trial in mine], [gap(trial) for trial in mine], marker, color=colour, markersize=3.5,
                      markerfacecolor=face, alpha=0.6)
            middle = [np.median([gap(trial) for trial in mine if trial.width == width]) for width in widths]
            axes.plot(widths, middle, look, color=colour, linewidth=1.2, label=f"p = {p:g}, {name}")
    axes.set(xlabel="width of the source", ylabel="largest gap to the target", xscale="log", yscale="log")
    return _finish(figure, (axes,))


def draw_representation(found: Sequence[Representation], widths: Sequence[int], delta: float) -> bytes:
    """Left: pairs without an edge against q, with (1-p)^q. Right: P(exact copy) against q over the theorem's q; as PNG."""
    figure, (left, right) = _panels(2)
    ps = sorted({row.p for row in found})
    shown = [p for p in ps if p in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)] or ps[:6]
    for place, p in enumerate(shown):
        colour, mine = COLOURS[place], [row for row in found if row.p == p]
        seen = [row for row in mine if row.missing > 0]
        left.plot([row.copies for row in seen], [row.missing for row in seen], MARKERS[place], color=colour, markersize=4.5,
                  label=f"p = {p:g}")
        fine = np.linspace(1, max(row.copies for row in mine), 100)
        left.plot(fine, (1 - p) ** fine, "-", color=colour, linewidth=0.9)
        enough = copies_to_represent(widths, p, delta)
        right.plot([row.copies / enough for row in mine], [row.represented for row in mine], MARKERS[place] + "-",
                   color=colour, markersize=4.5, linewidth=0.9)
    right.axhline(1 - delta, color="gray", linewidth=0.7, linestyle="--")
    left.set(xlabel="copies q", ylabel="pairs without an edge", yscale="log", xscale="log")
    right.set(xlabel="q / theorem's q", ylabel="sources that hold an exact copy", ylim=(-0.03, 1.03))
    return _finish(figure, (left,))


def draw_gaps(sources: Sequence[Mapping[str, Any]], epsilon: float | None) -> bytes:
    """Largest and mean |f_T - f_P| of each ticket by p and inputs, with epsilon if it is promised (left); and the width of the
    source layers over the target's (right), as PNG. `sources` as existence.json holds them."""
    figure, (left, right) = _panels(2)
    for place, name in enumerate(sources[0]["tickets"][0]["gaps"]):
        for number, (p, gap) in enumerate((source["er_p"], ticket["gaps"][name]) for source in sources
                                          for ticket in source["tickets"]):
            x, first = [p + 0.012 * (place - 2)], number == 0
            if not gap["largest"]:
                continue  # an exact ticket's, which no logarithmic axis has
            left.plot(x, [gap["largest"]], MARKERS[place], color=COLOURS[place], markersize=5,
                      label=name if first else None)
            left.plot(x, [gap["mean"]], MARKERS[place], color=COLOURS[place], markersize=4, fillstyle="none")
    highest = max(gap["largest"] for source in sources for ticket in source["tickets"] for gap in ticket["gaps"].values())
    if epsilon is not None and 0 < epsilon < FAR * (highest or 1):
        left.axhline(epsilon, color="gray", linewidth=0.9, linestyle="--")
        left.annotate("ε", (1.0, epsilon), xycoords=("axes fraction", "data"), color="gray", ha="right", va="bottom")
    left.set(xlabel="ER density p", ylabel="|f_T - f_P| of the logits", yscale="log" if highest else "linear", xlim=(0, 1.07))
    left.set_title("largest (filled) and mean (open)", fontsize=9)
    ps = [source["er_p"] for source in sources]
    for layer, copies in enumerate(zip(*(source["plan"]["copies"] for source in sources), strict=True)):
        right.plot(ps, copies, MARKERS[layer % 8] + "-", color=COLOURS[layer % 8], markersize=4.5, linewidth=1,
                   label=f"layer {layer}")
    right.set(xlabel="ER density p", ylabel="copies of each neuron, q", xlim=(0, 1.07))
    right.set_ylim(0, 1.05 * max(copies for source in sources for copies in source["plan"]["copies"]))
    return _finish(figure, (left, right))


def _panels(count: int) -> tuple[Any, ...]:
    from matplotlib.figure import Figure  # half a second of import that only pictures need

    figure = Figure(figsize=(5.2 * count, 3.4), layout="constrained", dpi=110)
    return figure, figure.subplots(1, count)


def _finish(figure: Figure, with_legend: Sequence[Axes]) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (part for part in with_legend if part.get_legend_handles_labels()[0]):
        axes.legend(frameon=False, fontsize=8, **BESIDE)
    return png(figure)

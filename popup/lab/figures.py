"""The pictures of a comparison, each a matplotlib Figure. A new one is a function and a line in FIGURES.

Every function takes the settings and returns None where they have nothing to show it with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from popup.lab.comparison import Setting, groups, measured_on, show, source_contrasts
from popup.lab.controls import CONTROLS
from popup.lab.plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from popup.lab.statistics import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = "osD^vPX*"
PANELS = 6  # the most panels of one picture
REFERENCES = {"random_trained": (BLACK, "--"), "random": (BLACK, ":"), "redrawn": (PURPLE, ":")}


def density_curve(found: Sequence[Setting]) -> Figure | None:
    """Accuracy against the final density, a line and band for each p, controls as reference lines."""
    panels = groups(found, ("er_p", "k"))[:PANELS]
    if len(found) < 2:
        return None
    figure, axes = _grid(len(panels))
    for place, (panel, group) in enumerate(zip(axes, panels, strict=True)):
        _references(panel, group, label=place == 0)
        for index, line in enumerate(_by(group, "er_p")):
            _band(panel, line, COLOURS[index % 8], MARKERS[index % 8], f"p = {line[0].config.source.er_p:g}")
        _log_density(panel, "final density: kept / all weights (realised)", group)
        panel.set(title=_title(group, ("er_p", "k")))
        _stretch_accuracy(panel)
    _legend(figure, axes[0], title="ticket from an ER source with")
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
    figure, (panel,) = _grid(1)
    densities = sorted({contrast.first.config.source.er_p for contrast in contrasts}, reverse=True)
    for index, er_p in enumerate(densities):
        mine = [contrast for contrast in contrasts if contrast.first.config.source.er_p == er_p]
        points = [(contrast.first.final_density * 1.02**index, contrast.difference.value, contrast.difference.half or 0)
                  for contrast in mine]
        x, y, half = zip(*sorted(points), strict=True)
        panel.errorbar(x, y, half, fmt=MARKERS[index % 8], color=COLOURS[index % 8], capsize=2, markersize=4,
                       label=f"p = {er_p:g}")
    panel.axhline(0, color=BLACK, linewidth=0.8)
    _log_density(panel, "final density (realised)", [contrast.first for contrast in contrasts])
    panel.set(ylabel="ER source minus dense source\n(percentage points)", title="equal final density, paired over seeds")
    _legend(figure, panel, title="ER source with")
    return figure


def layer_densities(found: Sequence[Setting]) -> Figure | None:
    """p_l of the source and the kept density, layer by layer, for each layerwise density (at the middle p and k)."""
    middle = found[len(found) // 2].config.source
    chosen = [setting for setting in found if setting.config.source.er_p == middle.er_p and setting.config.source.k == middle.k]
    figure, (left, right) = _grid(2)
    for index, setting in enumerate(chosen[:8]):
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
    _legend(figure, left)
    return figure


def training_curves(found: Sequence[Setting]) -> Figure | None:
    """Test accuracy by epoch, mean over seeds, for at most eight settings spread over the grid."""
    return _curves(found, "test_accuracy", "")


def mask_churn(found: Sequence[Setting]) -> Figure | None:
    """The fraction of kept edges that were not kept an epoch before."""
    return _curves(found, "churn", "kept edges new since the last epoch", yscale="log")


def _curves(found: Sequence[Setting], column: str, name: str, yscale: str = "linear") -> Figure | None:
    figure, (panel,) = _grid(1)
    places = sorted({round(place) for place in np.linspace(0, len(found) - 1, min(8, len(found)))})
    for index, setting in enumerate(found[place] for place in places):
        histories = [[row[column] for row in run.metrics()] for run in setting.runs]
        means = np.mean([history[:min(map(len, histories))] for history in histories], axis=0)
        panel.plot(range(1, len(means) + 1), means, color=COLOURS[index], linewidth=1.2,
                   label=setting.label().replace("er_p", "p") or "all")
    panel.set(xlabel="epoch", ylabel=name, yscale=yscale)
    if column == "test_accuracy":
        _stretch_accuracy(panel)
    _legend(figure, panel)
    return figure


def heat_map(found: Sequence[Setting]) -> Figure | None:
    """Mean accuracy over p and k."""
    panels = groups(found, ("er_p", "k"))[:PANELS]
    ps, ks = (sorted({getattr(setting.config.source, name) for setting in found}) for name in ("er_p", "k"))
    if len(ps) < 2 or len(ks) < 2 or len(ps) * len(ks) > 200:
        return None
    figure, axes = _grid(len(panels))
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
        panel.set(xlabel="ER density p", ylabel="kept fraction k of the edges", title=_title(group, ("er_p", "k")))
    figure.colorbar(image, ax=list(axes), label=f"{measured_on(found)} accuracy (%)")
    return figure


def effective_density(found: Sequence[Setting]) -> Figure | None:
    """The density of edges on a path from input to output, against the density kept."""
    found = [setting for setting in found if all(run.result["diagnostics"]["ticket"]["effective"] for run in setting.runs)]
    if not found:
        return None
    figure, (panel,) = _grid(1)
    for index, line in enumerate(_by(found, "density")):
        kept = [setting.final_density for setting in line]
        effective = [mean([sum(run.result["diagnostics"]["ticket"]["effective"]) / run.result["entries"]
                           for run in setting.runs]).value for setting in line]
        panel.plot(kept, effective, marker=MARKERS[index % 8], linestyle="", markersize=4, color=COLOURS[index % 8],
                   label=line[0].config.source.density)
    panel.axline((1, 1), slope=1, color=BLACK, linewidth=0.8)
    _log_density(panel, "final density: kept / all weights", found)
    panel.set(ylabel="kept and on a path / all weights", yscale="log")
    _legend(figure, panel)
    return figure


FIGURES: dict[str, tuple[str, Callable[[Sequence[Setting]], Any]]] = {
    "accuracy": ("Accuracy against final density", density_curve),
    "sparse_against_dense": ("ER source against dense source at equal final density", sparse_against_dense),
    "heat_map": ("Accuracy over p and k", heat_map),
    "layers": ("Layerwise densities", layer_densities),
    "training": ("Training curves", training_curves),
}
DIAGNOSTICS: dict[str, tuple[str, Callable[[Sequence[Setting]], Any]]] = {
    "churn": ("Mask churn", mask_churn),
    "effective": ("Effective density", effective_density),
}


def _grid(panels: int) -> tuple[Figure, list[Axes]]:
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
        panel.title.set_fontsize(9)
    return figure, axes[:panels]


def _legend(figure: Figure, panel: Axes, title: str | None = None) -> None:
    """One legend beside the panels, where it cannot hide a point."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=7, title=title,
                  title_fontsize=7)


def _by(found: Sequence[Setting], name: str) -> list[list[Setting]]:
    """The settings by the value of a field, each group sorted by final density."""
    values = sorted({setting.config.flat()[name] for setting in found}, reverse=name == "er_p")
    return [sorted((setting for setting in found if setting.config.flat()[name] == value),
                   key=lambda setting: setting.final_density) for value in values]


def _band(panel: Axes, line: Sequence[Setting], colour: str, marker: str, label: str) -> None:
    """Means with the band of their 95% intervals."""
    x, means = [setting.final_density for setting in line], [setting.accuracy for setting in line]
    y, half = np.array([value.value for value in means]), np.array([value.half or 0 for value in means])
    panel.fill_between(x, y - half, np.minimum(100, y + half), color=colour, alpha=0.18, linewidth=0)
    panel.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)


def _log_density(panel: Axes, name: str, found: Sequence[Setting]) -> None:
    """A logarithmic axis of densities whose ticks are plain numbers."""
    low, high = (limit([setting.final_density for setting in found]) for limit in (min, max))
    panel.set(xscale="log", xlabel=name)
    ticks = [tick for power in range(-5, 1) for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
             if 0.7 * low <= tick <= min(1.0, 1.4 * high)]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def _stretch_accuracy(panel: Axes) -> None:
    """An accuracy axis that is logarithmic in the errors, so that 98 and 99% part as 80 and 90% do; chance stays in sight."""
    low, high = panel.dataLim.intervaly
    spare = max(0.25, (100 - min(high, 100)) / 4)  # percent; keeps 100% at a finite place

    def forward(accuracy: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(100 + spare - np.asarray(accuracy, dtype=float), 1e-9))

    def inverse(place: np.ndarray) -> np.ndarray:
        return 100 + spare - np.exp(-np.asarray(place, dtype=float))

    panel.set_yscale("function", functions=(forward, inverse))
    ticks = [tick for tick in (0, 10, 20, 40, 60, 70, 80, 90, 95, 98, 99, 99.5, 100) if low - 5 <= tick <= min(100, high + 0.6)]
    apart = 0.045 * (forward(high) - forward(low - 3))
    clear = [tick for place, tick in enumerate(ticks) if not place or forward(tick) - forward(ticks[place - 1]) > apart]
    panel.set_yticks(clear, [f"{tick:g}" for tick in clear])
    panel.set_ylim(max(0, low - 3), min(100 + spare / 2, high + spare / 2))
    panel.set_ylabel("accuracy (%), log scale of the errors")
    panel.yaxis.label.set_fontsize(8.5)


def _title(group: Sequence[Setting], without: Sequence[str]) -> str:
    return ", ".join(show(value) for name, value in group[0].factors.items() if name not in without)

"""Pictures of the diagnostics, drawn on request: how masks move, what they never try, what of them can matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from popup.lab.report.axes import curves, grid, legend, lines_by, log_density, values_of
from popup.lab.report.comparison import Setting
from popup.lab.report.plots import BLACK
from popup.lab.report.statistics import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mask_churn(found: Sequence[Setting]) -> list[Figure]:
    """The fraction of kept edges that were not kept an epoch before."""
    return curves(found, "churn", "kept edges new since the last epoch", yscale="log")


def never_selected(found: Sequence[Setting]) -> list[Figure]:
    """The fraction of edges that no epoch so far has ended with."""
    return curves(found, "never_selected", "edges never selected / edges")


def dead_neurons(found: Sequence[Setting]) -> list[Figure]:
    """Output neurons and channels that no edge feeds, in S_ER and in S_P, summed over the layers."""
    found = _recorded(found)
    if not found:
        return []
    figure, (panel,) = grid(1)
    for colour, marker, line in lines_by(found, "density", values_of(found, "density")):
        kept = [setting.final_density for setting in line]
        for side, mask, look in (("er", "S_ER", {"markersize": 7, "fillstyle": "none"}), ("ticket", "S_P", {"markersize": 4})):
            dead = [mean([sum(run.result["diagnostics"][side]["dead"]) for run in setting.runs]).value for setting in line]
            panel.plot(kept, dead, marker=marker, linestyle="", color=colour, **look,
                       label=f"{line[0].value('density')}, {mask}")
    log_density(panel, "final density: kept / all weights", found)
    panel.set(ylabel="dead neurons or channels")
    panel.set_ylim(bottom=0)
    legend(figure, [panel])
    return [figure]


def _recorded(found: Sequence[Setting]) -> list[Setting]:
    """The settings whose runs have recorded what their masks look like."""
    return [setting for setting in found if all({"er", "ticket"} <= (run.result.get("diagnostics") or {}).keys()
                                                for run in setting.runs)]


def effective_density(found: Sequence[Setting]) -> list[Figure]:
    """The density of edges on a path from input to output, against the density kept."""
    found = [setting for setting in _recorded(found)
             if all(run.result["diagnostics"]["ticket"]["effective"] for run in setting.runs)]
    if not found:
        return []
    figure, (panel,) = grid(1)
    for colour, marker, line in lines_by(found, "density", values_of(found, "density")):
        kept = [setting.final_density for setting in line]
        effective = [mean([sum(run.result["diagnostics"]["ticket"]["effective"]) / run.result["entries"]
                           for run in setting.runs]).value for setting in line]
        panel.plot(kept, effective, marker=marker, linestyle="", markersize=4, color=colour,
                   label=line[0].value('density'))
    panel.axline((1, 1), slope=1, color=BLACK, linewidth=0.8)
    log_density(panel, "final density: kept / all weights", found)
    panel.set(ylabel="kept and on a path / all weights", yscale="log")
    legend(figure, [panel])
    return [figure]


DIAGNOSTICS: dict[str, tuple[str, Callable[[Sequence[Setting]], Any]]] = {
    "churn": ("Mask churn", mask_churn),
    "never_selected": ("Edges never selected", never_selected),
    "dead": ("Dead neurons", dead_neurons),
    "effective": ("Effective density", effective_density),
}

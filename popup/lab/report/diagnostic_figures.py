"""Pictures of the diagnostics, drawn on request: how masks move, what they never try, what of them can matter."""

from __future__ import annotations

from collections.abc import Sequence

from popup.lab.report.axes import WIDE, Sheet, legend, lines_by, values_of
from popup.lab.report.captions import Drawn, Picture
from popup.lab.report.comparison import Setting, weights_of
from popup.lab.report.curves import curves
from popup.lab.report.look import INK
from popup.lab.report.scales import log_density
from popup.lab.report.statistics import mean


def mask_churn(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """The fraction of kept edges that were not kept an epoch before."""
    return curves(found, "churn", "kept edges new since the last epoch", "log", sheet)


def never_selected(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """The fraction of edges that no epoch so far has ended with."""
    return curves(found, "never_selected", "edges never selected / edges", "linear", sheet)


def dead_neurons(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """Output neurons and channels that no edge feeds, in S_ER and in S_P, summed over the layers."""
    found = _recorded(found)
    if not found:
        return []
    if len(found) == 1:
        er, ticket = (_dead(found[0], side) for side in ("er", "ticket"))
        return f"No edge feeds {er:g} neurons or channels in S_ER, and {ticket:g} in S_P (means over seeds)."
    figure, (panel,) = sheet.grid(1)
    for colour, marker, line in lines_by(found, "density", values_of(found, "density")):
        kept = [setting.final_density for setting in line]
        for side, mask, size, fill in (("er", "S_ER", 7, "none"), ("ticket", "S_P", 4, "full")):
            dead = [_dead(setting, side) for setting in line]
            panel.plot(kept, dead, marker=marker, linestyle="", color=colour, markersize=size, fillstyle=fill,
                       label=f"{line[0].value('density')}, {mask}")
    log_density(panel, found)
    panel.set(ylabel="dead neurons or channels")
    panel.set_ylim(bottom=0)
    legend(figure, [panel], sheet)
    return [figure]


def _dead(setting: Setting, side: str) -> float:
    """How many there are, mean over seeds."""
    return mean([sum(run.found["diagnostics"][side]["dead"]) for run in setting.runs]).value


def _recorded(found: Sequence[Setting]) -> list[Setting]:
    """The settings whose runs have recorded what their masks look like."""
    return [setting for setting in found if all({"er", "ticket"} <= (run.found.get("diagnostics") or {}).keys()
                                                 for run in setting.runs)]


def effective_density(found: Sequence[Setting], sheet: Sheet = WIDE) -> Drawn:
    """The density of edges on a path from input to output, against the density kept."""
    found = [setting for setting in _recorded(found)
             if all(run.found["diagnostics"]["ticket"]["effective"] for run in setting.runs)]
    if not found:
        return []
    if len(found) == 1:
        return (f"Of all {weights_of(found)} {found[0].final_density:.4g} are kept, and {_effective(found[0]):.4g} are kept on a "
                "path from input to output (means over seeds).")
    figure, (panel,) = sheet.grid(1)
    for colour, marker, line in lines_by(found, "density", values_of(found, "density")):
        kept = [setting.final_density for setting in line]
        effective = [_effective(setting) for setting in line]
        panel.plot(kept, effective, marker=marker, linestyle="", markersize=4, color=colour,
                   label=line[0].value('density'))
    panel.axline((1, 1), slope=1, color=INK, linewidth=0.8)
    log_density(panel, found)
    panel.set(ylabel=f"kept and on a path / all {weights_of(found)}", yscale="log")
    legend(figure, [panel], sheet)
    return [figure]


def _effective(setting: Setting) -> float:
    """The effective density, mean over seeds."""
    return mean([sum(run.found["diagnostics"]["ticket"]["effective"]) / run.found["entries"] for run in setting.runs]).value


DIAGNOSTICS: dict[str, Picture] = {
    "churn": Picture("Mask churn", mask_churn, lambda found: (
        "The fraction of kept edges that were not kept an epoch before, mean over seeds.")),
    "never_selected": Picture("Edges never selected", never_selected, lambda found: (
        "The fraction of edges that no epoch so far has ended with, mean over seeds.")),
    "dead": Picture("Dead neurons", dead_neurons, lambda found: (
        "Neurons and channels that no edge feeds, in the source (open) and in the ticket (filled), mean over seeds.")),
    "effective": Picture("Effective density", effective_density, lambda found: (
        "The density of kept edges on a path from input to output against the density kept, mean over seeds; on the line all are "
        "on one.")),
}

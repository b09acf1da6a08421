"""A comparison in words and tables that fit a terminal of 100 columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from itertools import groupby
from textwrap import fill
from typing import Any

from popup.lab.config import Config
from popup.lab.identity import place_of, whatever_the_seed
from popup.lab.report.cells import as_mean, difference_cells, p_cell, unsure
from popup.lab.report.comparison import AXES, COMPARED, Setting, measured_on, shared_label, show, weights_of
from popup.lab.report.contrasts import (
    EQUAL,
    Advantage,
    Contrast,
    advantages,
    best_contrasts,
    change_contrasts,
    pooled,
    source_contrasts,
    weak_advantages,
)
from popup.lab.report.results import Run
from popup.lab.report.sizes import size_table
from popup.lab.report.tables import WIDTH, fit
from popup.lab.runs.cell import LONGEST_REASON, label
from popup.lab.runs.controls import CONTROLS, TICKET
from popup.lab.runs.grid import counted
from popup.lab.text import printable
from popup.source.recipe import SPREAD

SHORT = {"er_p": "p", "density": "layerwise", "random": "random", "shuffled": "shuffled", "redrawn": "redrawn",
         "source": "source", "random_trained": "random, trained", "er_trained": "ER, trained", "dense_trained": "dense, trained",
         "ticket_trained": "ticket, trained", "shuffled_trained": "shuffled, trained", "redrawn_trained": "redrawn, trained",
         "magnitude_trained": "magnitude, tuned", "magnitude_global_trained": "global magnitude, tuned"}
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


def summarise(runs: Sequence[Run], *comparisons: Sequence[Setting]) -> str:
    """The whole report as text: the tables of each comparison."""
    parts = [f"{fill(title, WIDTH)}\n{fit(header, rows)}" for found in comparisons for title, header, rows in tables(found)]
    parts += failure_lines(runs)
    return "\n\n".join(parts)


def tables(found: Sequence[Setting]) -> list[Table]:
    """All tables: tickets, controls, contrasts; empty ones left out."""
    if not found:
        return []
    spread = [name for name in SPREAD if name in found[0].factors]
    made = [ticket_table(found), further_table(found), control_table(found), *advantage_tables(found), weak_table(found),
            change_table(found),
            *(contrast_table(f"{title.capitalize()}: the best mean against the others (paired over seeds; Holm over all pairs)",
                             best_contrasts(found, factor), (factor,)) for factor, title in COMPARED.items()), size_table(found),
            contrast_table("Starting sparse: ER source against dense source at equal p k (paired over seeds)",
                           source_contrasts(found), (*AXES, *spread), realised=True)]
    return [part for part in made if part[2]]


def ticket_table(found: Sequence[Setting]) -> Table:
    """Tickets, and what trained weights reach in the same edges, with intervals."""
    roles = _roles(found, trained=True, usual=True)
    header = [*_names(found), "density", f"ticket {found[0].measure.heading}", *(SHORT[role] for role in roles), "seeds"]
    rows = [[*_values(setting), f"{setting.final_density:.4f}", _mean(setting),
             *(_control(setting, role) for role in roles), str(setting.accuracy.count)] for setting in found]
    counts = [setting.accuracy.count for setting in found]
    note = "one seed, so no interval" if max(counts) == 1 else "mean ±half of the 95% t interval over seeds"
    measure = found[0].measure
    title = (f"{measured_on(found).capitalize()} {measure.name} in {measure.unit.strip()} at the last epoch ({note}); density: "
             f"kept / all {weights_of(found)}, realised")
    return title + _counted(found, roles), header, rows


def further_table(found: Sequence[Setting]) -> Table:
    """The controls with trained weights that are run when they are asked for."""
    return _beside(found, _roles(found, trained=True, usual=False), "Further controls with trained weights")


def control_table(found: Sequence[Setting]) -> Table:
    """Frozen-weight controls beside the ticket."""
    return _beside(found, _roles(found, trained=False),
                   "Controls with frozen weights, same counts in each layer (source: all edges)")


def _beside(found: Sequence[Setting], roles: Sequence[str], title: str) -> Table:
    """The controls of these roles beside the ticket; no row where there is none."""
    header = [*_names(found), f"ticket {found[0].measure.heading}", *(SHORT[role] for role in roles), "seeds"]
    rows = [[*_values(setting), _mean(setting), *(_control(setting, role) for role in roles),
             str(setting.accuracy.count)] for setting in found] if roles else []
    return title + _counted(found, roles), header, rows


def advantage_tables(found: Sequence[Setting]) -> list[Table]:
    """One row a ticket: by how much it is above each control with trained weights, with the interval and Holm's p value over all
    of them; first the usual controls."""
    made = advantages(found, trained=True)
    return [_above(found, [one for one in made if CONTROLS[one.role].usual == usual], title)
            for usual, title in ((True, "Ticket minus control with trained weights"),
                                 (False, "Ticket minus further control with trained weights"))]


def weak_table(found: Sequence[Setting]) -> Table:
    """One row a ticket: what its own weights are worth once they are trained, so whether it is a weak ticket too."""
    return _above(found, weak_advantages(found), "Ticket with its weights trained minus others trained alike")


def _above(found: Sequence[Setting], made: Sequence[Advantage], title: str) -> Table:
    cases = {(id(one.setting), one.role): one for one in made}
    roles = [role for role in CONTROLS if any(one.role == role and one.adjusted is not None for one in cases.values())]
    rows = [[*_values(setting), *(_advantage(cases.get((id(setting), role))) for role in roles),
             str(setting.accuracy.count)] for setting in found] if roles else []
    counted = any("[" in text for row in rows for text in row[len(_names(found)):])
    title += f" ({found[0].measure.difference}, paired over seeds; in parentheses p, by Holm over all)"
    title += f"{'; [n]: over n seeds that both have' if counted else ''}{unsure([one.difference for one in cases.values()])}"
    return title, [*_names(found), *(SHORT[role] for role in roles), "seeds"], rows


def _advantage(one: Advantage | None) -> str:
    if one is None:
        return "-"
    seeds = "" if one.difference.count == one.setting.accuracy.count else f" [{one.difference.count}]"
    return f"{as_mean(one.difference).text(one.setting.measure.digits)}{seeds} ({p_cell(one.adjusted)})"


def change_table(found: Sequence[Setting]) -> Table:
    """One row a change: its accuracy, the usual setting's, the difference with its interval and p values."""
    heading = found[0].measure.heading
    header = [*_names(found), f"ticket {heading}", f"usual {heading}", "difference", "p", "p (Holm)", "seeds"]
    contrasts, rows = change_contrasts(found), []
    for changed, group in groupby(contrasts, key=lambda contrast: contrast.first.changed):
        mine = list(group)
        rows += [[*_values(contrast.first), _mean(contrast.first), _mean(contrast.second),
                  *difference_cells(contrast.difference, contrast.adjusted, contrast.first.measure)] for contrast in mine]
        if len(mine) > 1 and (over_all := pooled(mine)):
            told = difference_cells(over_all, None, found[0].measure)
            rows.append([changed, *["all"] * (len(_names(found)) - 1), "", "", *told])
    return ("What a change does to the usual setting (paired over seeds; all: the mean over the rows above, of the seeds that "
            "all of them have, no part of Holm's adjustment)" + unsure([one.difference for one in contrasts])), header, rows


def _mean(setting: Setting) -> str:
    return setting.accuracy.text(setting.measure.digits)


def contrast_table(title: str, contrasts: Sequence[Contrast], names: Sequence[str], realised: bool = False) -> Table:
    """One row a contrast: both sides, the difference with its interval, p value, Holm's p value; with the final densities
    of both sides if they are to be told as `realised`, or differ."""
    realised = realised or any(contrast.apart > EQUAL for contrast in contrasts)
    header = ["first", "second", "elsewhere equal", *(["densities, realised"] if realised else []), "difference", "p", "p (Holm)",
              "seeds"]
    rows = []
    for contrast in contrasts:
        both = (contrast.first, contrast.second)
        sides = [", ".join(show(side.value(name)) if name in COMPARED else f"{SHORT.get(name, name)} {show(side.value(name))}"
                           for name in names) for side in both]
        elsewhere = shared_label(*both, names).replace("er_p", "p")
        densities = [", ".join(f"{side.final_density:.4f}" for side in both)] if realised else []
        told = difference_cells(contrast.difference, contrast.adjusted, contrast.first.measure)
        rows.append([*sides, elsewhere or "-", *densities, *told])
    return title + unsure([contrast.difference for contrast in contrasts]), header, rows


def failure_lines(runs: Sequence[Run]) -> list[str]:
    """The failed runs with their reasons, and where more is known of them."""
    failed = [run for run in runs if run.failure]
    lines = [_indented(f"{run.path.name} {label(run.config)}: {run.failure}") for run in failed]
    more = [f"  more on each is in {run.path.parent}/HASH/: config.json metrics.jsonl failure.json" for run in failed[:1]]
    return ["\n".join([f"{len(lines)} failed:", *lines, *more])] if lines else []


def damaged_lines(damaged: Collection[str]) -> str:
    """The runs that cannot be read, by file and field."""
    return "\n".join([f"WARNING, {counted(len(damaged), 'run')} left out, which cannot be read:", *map(_indented, damaged)])


def _indented(text: str) -> str:
    """A long line below a heading."""
    return fill(printable(text, LONGEST_REASON), WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False,
                break_long_words=False)


def mixed_lines(runs: Sequence[Run]) -> list[str]:
    """A warning for each data set whose runs saw different images under one name, for each function whose runs had different
    networks, and one where runs that left the precision to popup computed in different ones. A result of before that does not
    record it counts as any."""
    images = _versions(runs, "data_fingerprint", lambda config: (config.task.dataset, config.task.image_size))
    networks = _versions(runs, "network_fingerprint", lambda config: (
        config.task.model, replace(config.task, role=TICKET, validation=0.0)))
    precisions = _versions(runs, "realised_precision", lambda config: config.training.precision)
    return [f"WARNING, not of the same images: runs on {show(name)} saw {len(counts)} different versions of it "
            f"({' and '.join(map(str, counts.values()))} runs)." for (name, _), counts in images.items()] + [
            f"WARNING, not of the same network: runs of {show(name)} had {len(counts)} different versions of it "
            f"({' and '.join(map(str, counts.values()))} runs)." for (name, _), counts in networks.items()] + [
            f"WARNING, not of the same precision: of the runs with --precision {name} "
            f"{' and '.join(f'{count} computed in {kind}' for kind, count in sorted(counts.items()))}."
            for name, counts in precisions.items()]


def _versions(runs: Sequence[Run], name: str, group: Callable[[Config], Hashable]) -> dict[Any, Counter[str]]:
    """How many runs of each group recorded what under `name`, of the groups that recorded different things in one place."""
    seen: dict[tuple[Any, str], Counter[str]] = defaultdict(Counter)
    for run in runs:
        if found := (run.result or {}).get(name):
            seen[group(run.config), place_of(found)][whatever_the_seed(found)] += 1
    return {key: counts for (key, _), counts in seen.items() if len(counts) > 1}


def _names(found: Sequence[Setting]) -> list[str]:
    return [SHORT.get(name, name) for name in found[0].columns]


def _values(setting: Setting) -> list[str]:
    return list(setting.columns.values())


def _roles(found: Sequence[Setting], trained: bool, usual: bool | None = None) -> list[str]:
    """The controls that some setting has, of those whose weights learn, or of the others; `usual`: of those that a sweep has
    unasked, or of the others."""
    return [role for role, control in CONTROLS.items() if control.trained == trained and usual in (None, control.usual)
            and any(setting.controls.get(role) for setting in found)]


def _control(setting: Setting, role: str) -> str:
    """A control's mean; with its number of seeds in brackets where that is not the ticket's."""
    value = setting.control(role)
    if value is None:
        return "-"
    text = value.text(setting.measure.digits)
    return text if value.count == setting.accuracy.count else f"{text} [{value.count}]"


def _counted(found: Sequence[Setting], roles: Sequence[str]) -> str:
    """What the brackets of `_control` mean, where there are any."""
    cells = [_control(setting, role) for setting in found for role in roles]
    return "; [n]: of n seeds, not the row's" if any("[" in cell for cell in cells) else ""

"""The command that makes the runs of a report again, worked out from their configs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

import torch

from popup.errors import UsageError
from popup.lab.config import Config, TaskSettings
from popup.lab.program import program
from popup.lab.recipes import DEFAULT, recipe, unasked
from popup.lab.report.comparison import show
from popup.lab.report.results import Run
from popup.lab.runs.controls import CONTROLS, TICKET
from popup.lab.runs.directory import TICKET_FILE
from popup.products.rule import pays
from popup.source.masks import COMPUTED
from popup.source.recipe import SPREAD, Recipe
from popup.ticket.ticket import load

FINAL, SEED = "final_density", "seed"
CHOOSING = ("dataset",)  # that other defaults depend on, so it is said unless it is the usual one
Row = dict[str, Any]     # what a run was asked for, by option


def command_of(runs: Sequence[Run]) -> str | None:
    """The command line whose grid these runs are; None where they are of no single one."""
    tickets = list({config.hash(): config for config in _as_asked(runs)}.values())
    if not tickets:
        return None
    rows, usual = _rows(tickets), _defaults(tickets)
    for asked in (rows, _by_final_density(rows)):
        values = _values(asked)
        if asked and _is_grid(asked, values):
            words = [word for name, found in values.items() if name != SEED for word in _option(name, found, usual)]
            seeds = values[SEED]
            words += [f"--{SEED}", str(seeds[0])] if seeds[0] else []
            words += ["--seeds", str(len(seeds))] if len(seeds) > 1 else []
            return shlex.join([*program().split(), *words, *_controls(runs, len(tickets))])
    return None


def in_common(runs: Sequence[Run]) -> str:
    """The options that the commands of all tickets have alike; empty if there are none."""
    tickets = _as_asked(runs)
    values, usual = _values(_rows(tickets)), _defaults(tickets) if tickets else {}
    return shlex.join(word for name, found in values.items() if name != SEED and len(found) == 1
                      for word in _option(name, found, usual))


def _as_asked(runs: Sequence[Run]) -> list[Config]:
    """The configs of the tickets, with "auto" for a "dense" that it comes to: what was asked for is not recorded then."""
    shapes: dict[TaskSettings, dict[str, tuple[int, ...]]] = {}
    return [run.config.replace(compute="auto") if run.config.training.compute == "dense" and _auto_is_dense(run, shapes)
            else run.config for run in runs if run.config.task.role == TICKET]


def _auto_is_dense(run: Run, shapes: dict[TaskSettings, dict[str, tuple[int, ...]]]) -> bool:
    """Whether no layer of the run would compute sparsely unasked, on any machine; by what a ticket of that network tells of its
    layers' shapes, and False where there is none. (A layer that is handed another's output is sparse only after a sparse one.)"""
    config, result = run.config, run.result or {}
    if config.training.compile or config.source.mask in COMPUTED:
        return True
    if config.task not in shapes:
        try:
            shapes[config.task] = {spec.name: spec.shape for spec in load(run.path / TICKET_FILE).specs}
        except (UsageError, OSError):
            return False
    found = shapes[config.task]
    against = torch.bfloat16 if result.get("realised_precision") == "bf16" else torch.float32
    return all(row.get("name") in found and "p_l" in row and not any(
        pays(found[row["name"]], row["p_l"] * row["entries"], against, torch.device("cpu"), kernels)
        for kernels in ("numba", "torch")) for row in result.get("layers", [{}]))


def _defaults(configs: Sequence[Config]) -> dict[str, Any]:
    """What need not be said of these configs: the values that fields have unasked, on the data of each of them."""
    flats = [recipe(unasked(config.task.dataset) or DEFAULT).config().flat() for config in configs]
    alike = {name: value for name, value in flats[0].items() if all(flat[name] == value for flat in flats)}
    return alike | {name: Config().flat()[name] for name in CHOOSING}


def _rows(configs: Sequence[Config]) -> list[Row]:
    """What each run was asked for, by the fields that the command line names, in the order in which the options stand."""
    names = [part.name for group in vars(Config()).values() for part in fields(group) if part.name != "role"]
    return [{name: asked[name] for name in names} for config in configs for asked in [config.asked()]]


def _by_final_density(rows: Sequence[Row]) -> list[Row]:
    """The rows with the final density in the place of k; none where k is not what follows from it."""
    found = []
    for row in rows:
        p, density = row["er_p"], float(f"{row['er_p'] * row['k']:.10g}")
        if row["k"] != float(f"{density / p:.12g}"):
            return []
        found.append({FINAL if name == "k" else name: density if name == "k" else value for name, value in row.items()})
    return found


def _values(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The values that each option has in some row."""
    return {name: sorted({row[name] for row in rows}, key=lambda value: (str(type(value)), value))
            for first in rows[:1] for name in first}


def _is_grid(rows: Sequence[Row], values: Mapping[str, list[Any]]) -> bool:
    """Whether the rows are all combinations of the values, each for every seed from the first on, and only axes have several. A
    final density above p is no run, and a source that has all edges is one however it would spread fewer."""
    axes = {part.name for group in vars(Config()).values() for part in fields(group) if part.metadata.get("axis")} | {FINAL, SEED}
    several, seeds = [name for name, found in values.items() if len(found) > 1 or name in (SEED, "er_p", FINAL)], values[SEED]
    if not axes.issuperset(name for name in several if len(values[name]) > 1) or seeds != [*range(seeds[0], seeds[-1] + 1)]:
        return False
    made = [dict(zip(several, found, strict=True)) for found in product(*(values[name] for name in several))]
    wanted, found = ({tuple(_spread_alike(rows[0] | one)[name] for name in several) for one in each} for each in (
        [one for one in made if one.get(FINAL, 0) <= one["er_p"]], rows))
    return found == wanted


def _spread_alike(row: Row) -> Row:
    """The row that is one for all that are the same network, but for how its edges would be spread."""
    source = Recipe(er_p=row["er_p"], density=row["density"], redistribute=row["redistribute"])
    return row | dict.fromkeys(SPREAD) if source.complete else row


def _option(name: str, values: Sequence[Any], usual: Mapping[str, Any]) -> list[str]:
    """An option with its values; none where these are the `usual` ones."""
    if name == FINAL:
        return ["--final-density", *map(repr, values)]
    plain = Config().flat()[name]
    part = next(part for group in vars(Config()).values() for part in fields(group) if part.name == name)
    if name in usual and list(values) == [usual[name]]:
        return []
    option = name.replace("_", "-")
    if isinstance(plain, bool):
        return [f"--{option}" if values[0] else f"--no-{option}"]
    if "words" in part.metadata:
        return [f"--{option}", *part.metadata["words"][0](values[0])]
    if isinstance(plain, tuple):
        return [f"--{option}", *map(str, values[0])]
    return [f"--{option}", *(show(value) if isinstance(value, float) and float(show(value)) == value else str(value)
                             for value in values)]


def _controls(runs: Sequence[Run], tickets: int) -> list[str]:
    """--controls, where it must be said."""
    roles = [role for role in CONTROLS if any(run.config.task.role == role for run in runs)]
    if roles == [role for role, control in CONTROLS.items() if control.usual and tickets > 1]:
        return []  # what a sweep has unasked, and a single run
    if not roles:
        return ["--controls", "none"]
    return ["--controls", "all"] if roles == list(CONTROLS) else ["--controls", *roles]

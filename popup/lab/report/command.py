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
from popup.ticket.ticket import load

HIDDEN = ("role", "seed")
CHOOSING = ("dataset",)  # that other defaults depend on, so it is said unless it is the usual one


def command_of(runs: Sequence[Run]) -> str | None:
    """The command line whose grid these runs are; None where they are of no single one."""
    tickets = list({config.hash(): config for config in _as_asked(runs)}.values())
    if not tickets:
        return None
    seeds = sorted({config.source.seed for config in tickets})
    values = _values(tickets)
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))) or not _is_grid(tickets, values, seeds):
        return None
    usual = _defaults(tickets)
    words = [word for name, found in values.items() for word in _option(name, found, usual)]
    words += ["--seed", str(seeds[0])] if seeds[0] else []
    words += ["--seeds", str(len(seeds))] if len(seeds) > 1 else []
    return shlex.join([*program().split(), *words, *_controls(runs, len(tickets))])


def in_common(runs: Sequence[Run]) -> str:
    """The options that the commands of all tickets have alike; empty if there are none."""
    tickets = _as_asked(runs)
    values, usual = (_values(tickets), _defaults(tickets)) if tickets else ({}, {})
    return shlex.join(word for name, found in values.items() if len(found) == 1 for word in _option(name, found, usual))


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


def _values(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """The values of each field that the command line names, in the order in which the options stand."""
    flats = [config.asked() for config in configs]
    return {part.name: sorted({flat[part.name] for flat in flats}, key=lambda value: (str(type(value)), value))
            for group in vars(configs[0]).values() for part in fields(group) if part.name not in HIDDEN}


def _is_grid(configs: Sequence[Config], values: dict[str, list[Any]], seeds: Sequence[int]) -> bool:
    """Whether the configs are all combinations of the values, each for every seed, and only axes have several."""
    axes = {part.name for group in vars(configs[0]).values() for part in fields(group) if part.metadata.get("axis")}
    several = [name for name, found in values.items() if len(found) > 1]
    count = len(seeds)
    for name in several:
        count *= len(values[name])
    if count != len(configs) or not axes.issuperset(several):
        return False
    there = {(config.source.seed, *(config.asked()[name] for name in several)) for config in configs}
    return there == set(product(seeds, *(values[name] for name in several)))


def _option(name: str, values: Sequence[Any], usual: Mapping[str, Any]) -> list[str]:
    """An option with its values; none where these are the `usual` ones."""
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

"""The command that makes the runs of a report again, worked out from their configs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from typing import Any

from popup.lab.config import Config
from popup.lab.program import program
from popup.lab.report.comparison import show
from popup.lab.report.results import Run
from popup.lab.runs.controls import CONTROLS, TICKET

SETTLED = {"compute": ("auto", "dense")}  # what a rule may have made of a default
HIDDEN = ("role", "seed")


def command_of(runs: Sequence[Run]) -> str | None:
    """The command line whose grid these runs are; None where they are of no single one."""
    tickets = list({run.config.hash(): run.config for run in runs if run.config.task.role == TICKET}.values())
    if not tickets:
        return None
    seeds = sorted({config.source.seed for config in tickets})
    values = _values(tickets)
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))) or not _is_grid(tickets, values, seeds):
        return None
    words = [word for name, found in values.items() for word in _option(name, found)]
    words += ["--seed", str(seeds[0])] if seeds[0] else []
    words += ["--seeds", str(len(seeds))] if len(seeds) > 1 else []
    return shlex.join([*program().split(), *words, *_controls(runs, len(tickets))])


def in_common(runs: Sequence[Run]) -> str:
    """The options that the commands of all tickets have alike; empty if there are none."""
    tickets = [run.config for run in runs if run.config.task.role == TICKET]
    values = _values(tickets) if tickets else {}
    return shlex.join(word for name, found in values.items() if len(found) == 1 for word in _option(name, found))


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


def _option(name: str, values: Sequence[Any]) -> list[str]:
    """An option with its values; none where these are the default."""
    plain = Config().flat()[name]
    part = next(part for group in vars(Config()).values() for part in fields(group) if part.name == name)
    if list(values) == [plain] or (len(values) == 1 and values[0] in SETTLED.get(name, ())):
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

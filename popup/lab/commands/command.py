"""The command line: python run.py OPTIONS searches for tickets and reports them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from popup.errors import check_name
from popup.lab.commands.arguments import Request, parse
from popup.lab.commands.bench_command import bench
from popup.lab.commands.densities_command import densities
from popup.lab.commands.ending import ENDINGS, plain_warnings, say
from popup.lab.commands.eval_command import evaluate_ticket
from popup.lab.commands.law_command import law
from popup.lab.commands.prove_command import prove
from popup.lab.commands.recipes_command import hint, recipes
from popup.lab.commands.single import run_single
from popup.lab.commands.sweep_command import plan_grid, report, run_grid, submit_grid
from popup.lab.commands.ticket_commands import diff, export, show
from popup.lab.commands.unused import unused_note
from popup.lab.commands.verify_command import verify_ticket
from popup.lab.commands.worker_command import worker
from popup.lab.config import Config
from popup.lab.data.datasets import DATASETS
from popup.lab.machine import versions
from popup.lab.networks import Models, find_builder
from popup.lab.runs.checks import settled, without_numba
from popup.lab.runs.directory import check_writable
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.ranks import joined
from popup.lab.training.stop import RunFailed, Stop, out_of_memory

DONE = 0

DESCRIPTION = """popup finds strong lottery tickets inside Erdos-Renyi networks: weights are random and frozen, a fixed ER
mask keeps a fraction p of them, and learned scores select the fraction k of those edges that makes the ticket.

One ticket, and a comparison:
    python run.py --er-p 0.2 --k 0.5 --density erk
    python run.py --er-p 0.05 0.2 1 --k 0.25 0.5 --seeds 5

Other commands, each with its own --help:
    of a directory    report DIR, worker DIR
    of a ticket       eval, show, verify TICKET; export TICKET OUT; diff A B
    of neither        recipes, densities, bench, prove, law; --version"""

COMMANDS: dict[str, Callable[[Sequence[str], Models], int]] = {
    "report": report, "bench": bench, "densities": densities, "prove": prove, "law": law, "eval": evaluate_ticket,
    "show": show, "verify": verify_ticket, "export": export, "diff": diff, "recipes": recipes}


def main(arguments: Sequence[str], models: Models) -> int:
    """Do what the command line asks for; returns the exit code. `models` maps names to network builders."""
    name = arguments[0] if arguments else ""
    with plain_warnings(), Stop().listening() as stop:
        try:
            if name in COMMANDS:
                return COMMANDS[name](arguments[1:], models)
            if name == "--version":
                print(", ".join(" ".join(pair) for pair in versions().items()))
                return DONE
            return worker(arguments[1:], models, stop) if name == "worker" else _search(arguments, models, stop)
        except ENDINGS as error:
            stop.ignore()  # a lost rank has torchrun terminate the others while they say so
            return say(error, goes_on=name not in COMMANDS)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            stop.ignore()
            return say(RunFailed(f"out of memory: {error}"))


def _search(arguments: Sequence[str], models: Models, stop: Stop) -> int:
    if arguments and not arguments[0].startswith("-"):
        check_name("command", arguments[0], [*COMMANDS, "worker"])
    request = parse(arguments, DESCRIPTION, {"model": list(models), "dataset": list(DATASETS)})
    out = check_writable(Path(request.output.out))
    with joined(request.machine) as (ranks, device):
        return _do(request, Laboratory(models, request.machine, out, stop, ranks, device))


def _do(request: Request, laboratory: Laboratory) -> int:
    for er_p, density in request.impossible:
        print(f"impossible and skipped: final density {density:g} in a source of p = {er_p:g} (k would be above 1)")
    if request.recipe is None:
        hint(request.configs)
    roles = request.output.roles(len(request.configs) > 1)
    if note := unused_note(request.given, roles, dict.fromkeys(config.search.method for config in request.configs)):
        print(note)
    configs = list(_settled(request.configs, laboratory))
    if note := without_numba(laboratory, request.configs):
        print(note)
    if request.output.plan_only or request.cluster.cluster != "none":
        laboratory.ranks.check_alone("--plan-only" if request.output.plan_only else "--cluster")
    if request.output.plan_only:
        return plan_grid(laboratory, configs, roles)
    if request.cluster.cluster != "none":
        return submit_grid(laboratory, configs, roles, request.cluster, request.output.workers)
    if len(configs) == 1 and not roles:
        run_single(laboratory, configs[0])
        return DONE
    return run_grid(laboratory, configs, roles, request.output.workers)


def _settled(configs: Sequence[Config], laboratory: Laboratory) -> Iterator[Config]:
    """The configs with what is left to a rule settled; those that differ in seeds and selection alone need one look. A wrong
    model is told before data are loaded for it."""
    for model in dict.fromkeys(config.task.model for config in configs):
        find_builder(laboratory.models, model)
    found: dict[tuple[Any, ...], str] = {}
    for config in configs:
        kind = config.task, config.training, replace(config.source, seed=0, k=1.0)
        if kind not in found:
            found[kind] = settled(laboratory, config).training.compute
        yield config.replace(compute=found[kind])

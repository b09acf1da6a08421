"""python run.py worker DIR: one of any number of processes that do what is planned there."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from popup.errors import UsageError
from popup.lab.commands.arguments import parse_groups
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.networks import Models
from popup.lab.program import program
from popup.lab.report.results import read_runs
from popup.lab.report.summary import failure_lines
from popup.lab.runs.cell import LONGEST_REASON, check_locks
from popup.lab.runs.checks import check_finished
from popup.lab.runs.controls import TICKET
from popup.lab.runs.directory import check_writable
from popup.lab.runs.grid import Planned, another_version, counted, find_cells
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.worker import Event, work
from popup.lab.text import printable
from popup.lab.training.ranks import joined
from popup.lab.training.stop import Stop
from popup.lab.trust import Trust

DONE, FAILED = 0, 1


@dataclass(frozen=True)
class WorkerOptions:
    """Do the runs that were planned into a directory (--plan-only) or left unfinished there, until none is left. Any number
    of workers, on machines that share the directory, may join and leave: each run is done once."""

    directory: str = field(metadata={"help": "the --out directory that the grid was planned into", "positional": True})
    retry: bool = field(default=False, metadata={"help": "also do again what has failed"})
    code: tuple[str, ...] = field(default=(), metadata={
        "help": "functions MODULE:FUNCTION that may be run where the plan names them as a model or data set"})
    trust: bool = field(default=False, metadata={"help": "run whatever functions the plan names: it is yours"})


def worker(arguments: Sequence[str], models: Models, stop: Stop) -> int:
    """Do cells until none is left. Returns the exit code: 1 if one that this worker did has failed, or broke a law."""
    options, machine = parse_groups([WorkerOptions, Machine], arguments, "worker")
    with joined(machine) as (ranks, device):
        laboratory = Laboratory(models, machine, Path(options.directory), stop, ranks, device)
        return join(laboratory, Trust(frozenset(options.code), options.trust), options.retry)


def join(laboratory: Laboratory, trust: Trust, retry: bool = False) -> int:
    """Be one of the workers on the laboratory's directory; a line for each cell that starts or ends. Functions that a config
    names are run as far as there is `trust`. `retry`: what has failed is to be done again."""
    planned = find_cells(laboratory.out)  # a directory that is not there is told before anything is written
    check_locks(check_writable(laboratory.out))
    for cell in planned.cells if retry and laboratory.ranks.first else []:
        cell.forget_failure()
    _tell_left(laboratory.out, planned, trust)
    _check_finished(laboratory, planned, trust)
    log = WorkerLog()
    while laboratory.ranks.share(left := _left(find_cells(laboratory.out), trust)):
        log.describe(laboratory, left)
        work(laboratory, left, log.tell)  # and look again: more may have been planned
    failed = [cell for cell in find_cells(laboratory.out).cells if not cell.finished()]
    for part in failure_lines(read_runs(cell.path for cell in failed).runs):
        print(f"{part}\n    {program()} worker {laboratory.place} --retry\ndoes them again")
    print(f"{log.name}: nothing is left to do in {laboratory.place}/; this worker finished {counted(log.finished, 'run')}, "
          f"{log.failed} failed", flush=True)
    return FAILED if log.failed or log.broken or planned.damaged else DONE


def _left(planned: Planned, trust: Trust) -> list[Config]:
    """What is to be done, and may be."""
    return [cell.config for cell in planned.cells
            if not cell.over() and not trust.lacks(cell.config.task.model, cell.config.task.dataset)]


def _check_finished(laboratory: Laboratory, planned: Planned, trust: Trust) -> None:
    """A UsageError if a function that is trusted makes other data or networks now than runs were finished on here, some of whose
    tasks are left to do."""
    tasks = {replace(config.task, role=TICKET) for config in _left(planned, trust)}
    check_finished(laboratory, [cell.config for cell in planned.cells if replace(cell.config.task, role=TICKET) in tasks])


def _tell_left(out: Path, planned: Planned, trust: Trust) -> None:
    """A line on each kind of run that this worker leaves alone; a UsageError if there are no others."""
    strange, damaged = planned.strange, planned.damaged
    if strange:
        print(another_version(strange), flush=True)
    for line in damaged:
        print(printable(line), flush=True)
    unasked = {cell.name: trust.lacks(cell.config.task.model, cell.config.task.dataset) for cell in planned.cells
               if not cell.over()}
    names = sorted({name for lacking in unasked.values() for name in lacking})
    if names:
        told = ", ".join(printable(name, 200) for name in names[:3]) + ", ..." * bool(names[3:])
        said = (f"{counted(sum(map(bool, unasked.values())), 'run')} in {printable(out)}/ would run code that the plan names "
                f"({told}): name it with --code, or give --trust if the plan is yours")
        if all(unasked.values()):
            raise UsageError(said)
        print(said, flush=True)
    if damaged and not planned.cells:
        raise UsageError(f"no config in {out}/ can be read, so nothing can be done")
    if not (planned.cells or strange):
        raise UsageError(f"nothing is planned in {out}/ yet: start with {program()} ... --plan-only --out {out}")


class WorkerLog:
    """A line an event, with the worker's name."""

    def __init__(self) -> None:
        self.name, self.finished, self.failed, self.broken = f"{platform.node()}:{os.getpid()}", 0, 0, 0
        self.described: set[tuple[str, int, float]] = set()

    def describe(self, laboratory: Laboratory, configs: Sequence[Config]) -> None:
        """Say once of each data set what it is."""
        tasks = {(config.task.dataset, config.task.image_size, config.task.validation): config for config in configs}
        for key in tasks.keys() - self.described:
            self.described.add(key)
            if laboratory.ranks.first:
                print(*laboratory.data(tasks[key]).described(), sep="\n", flush=True)

    def tell(self, event: Event) -> None:
        """Print the event and count it."""
        self.finished += event.kind == "finished"
        self.failed += event.kind == "failed"
        self.broken += not event.holds
        reason = event.reason or ("" if event.holds else "its proof is BROKEN")
        said = f"{self.name}: {event.kind} {event.cell} {event.label}{reason and f': {reason}'}"
        print(printable(said, LONGEST_REASON), flush=True)

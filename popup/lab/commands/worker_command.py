"""python run.py worker DIR: one of any number of processes that do what is planned there."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from popup.errors import UsageError
from popup.lab.commands.arguments import parse_groups
from popup.lab.machine import Machine
from popup.lab.networks import Models
from popup.lab.report.results import read_runs
from popup.lab.report.summary import failure_lines
from popup.lab.runs.cell import check_locks
from popup.lab.runs.directory import check_writable
from popup.lab.runs.grid import another_version, counted, find_cells
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.worker import Event, work
from popup.lab.training.ranks import joined
from popup.lab.training.stop import Stop

DONE, FAILED = 0, 1


@dataclass(frozen=True)
class WorkerOptions:
    """Do the runs that were planned into a directory (--plan-only) or left unfinished there, until none is left. Any number
    of workers, on machines that share the directory, may join and leave: each run is done once."""

    directory: str = field(metadata={"help": "the --out directory that the grid was planned into", "positional": True})
    retry: bool = field(default=False, metadata={"help": "also do again what has failed"})


def worker(arguments: Sequence[str], models: Models, stop: Stop) -> int:
    """Do cells until none is left. Returns the exit code: 1 if one that this worker did has failed."""
    options, machine = parse_groups([WorkerOptions, Machine], arguments, "worker")
    with joined(machine) as (ranks, device):
        return join(Laboratory(models, machine, Path(options.directory), stop, ranks, device), options.retry)


def join(laboratory: Laboratory, retry: bool = False) -> int:
    """Be one of the workers on the laboratory's directory; a line for each cell that starts or ends. `retry`: what has
    failed is to be done again."""
    cells, strange = find_cells(laboratory.out)  # a directory that is not there is told before anything is written
    check_locks(check_writable(laboratory.out))
    for cell in cells if retry and laboratory.ranks.first else []:
        cell.forget_failure()
    if strange:
        print(another_version(strange), flush=True)
    elif not cells:
        raise UsageError(f"nothing is planned in {laboratory.out}/ yet: start with python run.py ... --plan-only --out "
                         f"{laboratory.out}")
    log = WorkerLog()
    while laboratory.ranks.share(left := [cell.config for cell in find_cells(laboratory.out)[0] if not cell.over()]):
        work(laboratory, left, log.tell)  # and look again: more may have been planned
    failed = [cell for cell in find_cells(laboratory.out)[0] if not cell.finished()]
    for part in failure_lines(read_runs(cell.path for cell in failed)):
        print(f"{part}\n    python run.py worker {laboratory.out} --retry\ndoes them again")
    print(f"{log.name}: nothing is left to do in {laboratory.out}/; this worker finished {counted(log.finished, 'run')}, "
          f"{log.failed} failed", flush=True)
    return FAILED if log.failed else DONE


class WorkerLog:
    """A line an event, with the worker's name."""

    def __init__(self) -> None:
        self.name, self.finished, self.failed = f"{platform.node()}:{os.getpid()}", 0, 0

    def tell(self, event: Event) -> None:
        """Print the event and count it."""
        self.finished += event.kind == "finished"
        self.failed += event.kind == "failed"
        print(f"{self.name}: {event.kind} {event.cell} {event.label}{event.reason and f': {event.reason}'}", flush=True)

"""A worker: does the cells of a grid that nobody has done and nobody is doing, in any number of processes.

A cell is a run's directory. It is claimed by locking a file in it, which the system unlocks when the process ends,
however it ends. It is finished when result.json is there, failed when failure.json is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from popup.errors import UsageError
from popup.files import write_atomically
from popup.lab.config import Config
from popup.lab.runs.controls import CONTROLS, TICKET
from popup.lab.runs.run import Laboratory
from popup.lab.training.training import RunFailed

PAUSE = 0.05  # seconds between two looks at cells that others are doing


@dataclass(frozen=True)
class Event:
    """What a worker tells: that it starts a cell, or how the cell ended ('started', 'finished', 'failed')."""

    kind: str
    cell: str
    label: str = ""


class Cell:
    """One run of a grid as the workers see it."""

    def __init__(self, out: Path, config: Config) -> None:
        self.config, self.name = config, config.hash()
        self.path = out / self.name
        role = config.task.role
        needs = role != TICKET and CONTROLS[role].needs_ticket
        self.ticket = Cell(out, config.replace(role=TICKET)) if needs else None

    @property
    def label(self) -> str:
        """The cell in a few words, for the bar."""
        source, task = self.config.source, self.config.task
        return f"{task.role} p={source.er_p:g} k={source.k:.3g} seed {source.seed}"

    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def failure(self) -> str | None:
        """Why the cell failed, None if it did not."""
        try:
            return json.loads((self.path / "failure.json").read_text(encoding="utf-8"))["reason"]
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def over(self) -> bool:
        """Whether nothing is left to do for the cell."""
        return self.finished() or self.failure() is not None

    def ready(self) -> bool:
        """Whether what the cell needs is there, or will never be."""
        return self.ticket is None or self.ticket.over()

    def fail(self, reason: str) -> None:
        """Record why the cell cannot be done."""
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"hash": self.name, "reason": " ".join(reason.split())}
        write_atomically(self.path / "config.json", json.dumps(self.config.record(), indent=1).encode())
        write_atomically(self.path / "failure.json", json.dumps(record, indent=1).encode())

    def forget_failure(self) -> None:
        """Let the cell be tried again."""
        (self.path / "failure.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold the cell for the block; False if another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w", encoding="ascii") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True


def work(laboratory: Laboratory, configs: Sequence[Config], tell: Callable[[Event], None],
         keep_on: Callable[[], bool] = lambda: True) -> None:
    """Do cells until all of `configs` are finished or failed, or until `keep_on` says stop (asked between epochs)."""
    pending = [Cell(laboratory.out, config) for config in configs]
    while pending and keep_on():
        before = len(pending)
        pending = [cell for cell in pending if not _try_cell(laboratory, cell, tell, keep_on)]
        if len(pending) == before:
            time.sleep(PAUSE)


def _try_cell(laboratory: Laboratory, cell: Cell, tell: Callable[[Event], None], keep_on: Callable[[], bool]) -> bool:
    """Do the cell if it is there to be done. Returns whether it is over."""
    if cell.over():
        return True
    if not cell.ready() or not keep_on():
        return False
    with cell.claim() as mine:
        if mine and not cell.over():
            _do_cell(laboratory, cell, tell, keep_on)
    return mine and cell.over()


def _do_cell(laboratory: Laboratory, cell: Cell, tell: Callable[[Event], None], keep_on: Callable[[], bool]) -> None:
    """Run the cell; a failure that is the cell's own is recorded and the worker goes on."""
    tell(Event("started", cell.name, cell.label))
    try:
        if cell.ticket is not None and not cell.ticket.finished():
            raise RunFailed(f"its ticket failed: {cell.ticket.failure()}")
        laboratory.run(cell.config, lambda metrics: _stop_unless(keep_on))
    except (RunFailed, UsageError, MemoryError, torch.OutOfMemoryError) as error:
        cell.fail(str(error) or type(error).__name__)
    except RuntimeError as error:  # torch words a failed allocation on the CPU so
        if "alloc" not in str(error):
            raise
        cell.fail(f"out of memory: {error}")
    tell(Event("failed" if cell.failure() else "finished", cell.name, cell.label))


def _stop_unless(keep_on: Callable[[], bool]) -> None:
    if not keep_on():
        raise KeyboardInterrupt

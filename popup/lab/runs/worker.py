"""A worker: does the cells of a grid that nobody has done and nobody is doing, in any number of processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.runs.cell import Cell
from popup.lab.runs.run import Laboratory
from popup.lab.training.training import RunFailed

MOST_DEATHS = 3  # processes that may be killed on one cell, without a checkpoint between them, before it is called failed
PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two looks at cells that others are doing, doubled from look to look


@dataclass(frozen=True)
class Event:
    """What a worker tells: that it starts a cell, or how the cell ended ('started', 'finished', 'failed')."""

    kind: str
    cell: str
    label: str = ""


def work(laboratory: Laboratory, configs: Sequence[Config], tell: Callable[[Event], None],
         keep_on: Callable[[], bool] = lambda: True) -> None:
    """Do cells until all of `configs` are finished or failed, or until `keep_on` says stop (asked between epochs)."""
    if not laboratory.ranks.first:
        return _follow(laboratory)
    pending, pause = [Cell(laboratory.out, config) for config in configs], PAUSE
    while pending and keep_on():
        before = len(pending)
        pending = [cell for cell in pending if not _try_cell(laboratory, cell, tell, keep_on)]
        pause = PAUSE if len(pending) < before else min(2 * pause, LONGEST_PAUSE)
        if pending and pause > PAUSE:
            time.sleep(pause)
    laboratory.ranks.share(None)


def _follow(laboratory: Laboratory) -> None:
    """Take part in the runs that rank 0 has claimed, until it has no more."""
    while (config := laboratory.ranks.share(None)) is not None:
        with contextlib.suppress(RunFailed, UsageError):  # which rank 0 meets too, and records
            laboratory.run(config)


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
    with cell.counting_deaths() as deaths:
        if deaths < MOST_DEATHS:
            _run_cell(laboratory, cell, keep_on)
        else:
            cell.fail(f"{deaths} workers in a row were killed while they did it, often for want of memory")
    tell(Event("failed" if cell.failure() else "finished", cell.name, cell.label))


def _run_cell(laboratory: Laboratory, cell: Cell, keep_on: Callable[[], bool]) -> None:
    try:
        if cell.ticket is not None and not cell.ticket.finished():
            raise RunFailed(f"its ticket failed: {cell.ticket.failure()}")
        laboratory.ranks.share(cell.config)
        laboratory.run(cell.config, lambda metrics: _stop_unless(keep_on))
    except (RunFailed, UsageError, MemoryError, torch.OutOfMemoryError) as error:
        cell.fail(str(error) or type(error).__name__)
        if laboratory.ranks.count > 1 and isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise RunFailed("out of memory on one rank, so all end") from None
    except RuntimeError as error:  # torch words a failed allocation on the CPU so
        if "alloc" not in str(error):
            raise
        cell.fail(f"out of memory: {error}")


def _stop_unless(keep_on: Callable[[], bool]) -> None:
    if not keep_on():
        raise KeyboardInterrupt

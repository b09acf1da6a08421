"""A worker: does the cells of a grid that nobody has done and nobody is doing, in any number of processes."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.runs.cell import Cell
from popup.lab.runs.checks import check
from popup.lab.runs.controls import TICKET
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.stop import RunFailed, out_of_memory

MOST_DEATHS = 3  # processes that may be killed on one cell, without a checkpoint between them, before it is called failed
PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two looks at cells that others are doing, doubled from look to look


@dataclass(frozen=True)
class Event:
    """What a worker tells: that it starts a cell, or how the cell ended ('started', 'finished', 'failed') and why; `holds`: of a
    ticket that is finished whether its proof does."""

    kind: str
    cell: str
    label: str = ""
    reason: str = ""
    holds: bool = True


def work(laboratory: Laboratory, configs: Sequence[Config], tell: Callable[[Event], None],
         keep_on: Callable[[], bool] = lambda: True) -> None:
    """Do cells until all of `configs` are finished or failed, or until `keep_on` says stop (asked between epochs).

    A UsageError, which leaves the cells to others, if this machine cannot do one, or if all that are left are controls whose
    tickets nobody will find.
    """
    if not laboratory.ranks.first:
        return _follow(laboratory)
    pending, pause = [Cell(laboratory.out, config) for config in configs], PAUSE
    while pending and keep_on():
        before = len(pending)
        pending = [cell for cell in pending if not _try_cell(laboratory, cell, tell, keep_on)]
        _check_tickets(pending)
        pause = PAUSE if len(pending) < before else min(2 * pause, LONGEST_PAUSE)
        if pending and pause > PAUSE:
            time.sleep(pause)
    laboratory.ranks.share(None)


def _check_tickets(pending: Sequence[Cell]) -> None:
    names = {cell.name for cell in pending}
    gone = [[other for other in cell.needs if not other.over() and other.name not in names and not other.planned()]
            for cell in pending]  # what is planned may be done by another
    if pending and all(gone):
        raise UsageError(f"{pending[0].path} and what else is left, {len(pending)} in all, are controls of tickets whose "
                         f"directories are gone ({gone[0][0].path}): plan the grid again, with the tickets, or remove the "
                         "controls")


def _follow(laboratory: Laboratory) -> None:
    """Take part in the runs that rank 0 has claimed, until it has no more."""
    while (config := laboratory.ranks.share(None)) is not None:
        check(laboratory, config)  # what only this rank lacks ends all
        with contextlib.suppress(RunFailed, UsageError):  # which rank 0 meets too, and records
            run(laboratory, config)


def _try_cell(laboratory: Laboratory, cell: Cell, tell: Callable[[Event], None], keep_on: Callable[[], bool]) -> bool:
    """Do the cell if it is there to be done. Returns whether it is over."""
    if cell.over():
        return True
    if not cell.ready() or not keep_on():
        return False
    check(laboratory, cell.config)
    with cell.claim() as mine:
        if mine and not cell.over():
            _do_cell(laboratory, cell, tell, keep_on)
    return mine and cell.over()


def _do_cell(laboratory: Laboratory, cell: Cell, tell: Callable[[Event], None], keep_on: Callable[[], bool]) -> None:
    """Run the cell; a failure that is the cell's own is recorded and the worker goes on."""
    tell(Event("started", cell.name, cell.label))
    holds = True
    with cell.counting_deaths() as deaths:
        if deaths < MOST_DEATHS:
            holds = _run_cell(laboratory, cell, keep_on)
        else:
            cell.fail(f"{deaths} workers in a row were killed while they did it, often for want of memory")
    reason = cell.failure() or ""
    tell(Event("failed" if reason else "finished", cell.name, cell.label, reason, holds))


def _run_cell(laboratory: Laboratory, cell: Cell, keep_on: Callable[[], bool]) -> bool:
    """Returns whether its proof holds, or it has none."""
    try:
        for other in cell.needs:
            if not other.finished():
                kind = "ticket" if other.config.task.role == TICKET else "dense network"
                raise RunFailed(f"its {kind} failed: {other.failure()}")
        laboratory.ranks.share(cell.config)
        found = run(laboratory, cell.config, lambda metrics: _stop_unless(keep_on))
        return bool((found["proof"] or {}).get("holds", True))
    except (RunFailed, UsageError) as error:
        cell.fail(str(error))
    except OSError:  # a full disk, a parent that is gone: any cell would meet it
        raise
    except Exception as error:
        if out_of_memory(error):
            cell.fail(f"out of memory: {error}")
            if laboratory.ranks.count > 1:
                raise RunFailed("out of memory on one rank, so all end") from None
        elif laboratory.ranks.count > 1 or "CUDA error" in str(error):  # a rank is lost, or the process can do no more
            raise
        else:
            cell.fail(described(error), traceback.format_exc())
    return True


def described(error: BaseException) -> str:
    """An error nobody has thought of, as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.500}".removesuffix(": ")


def _stop_unless(keep_on: Callable[[], bool]) -> None:
    if not keep_on():
        raise KeyboardInterrupt

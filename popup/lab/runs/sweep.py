"""A sweep: the cells of a grid and its controls, done by a pool of worker processes that lasts as long as the sweep."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from tqdm import tqdm

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.machine import Machine, usable_cores
from popup.lab.networks import Models
from popup.lab.runs import forks
from popup.lab.runs.cell import Cell
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.worker import Event, described, work
from popup.lab.training.stop import RunFailed, Stop

LINE = "{percentage:3.0f}% |{bar:24}| {n_fmt} of {total_fmt} runs, {remaining} left{postfix}"  # at 100 columns the bar is one
PATIENCE = 0.1   # seconds the parent waits for an event before it looks after its workers
STOPPED = 143    # exit code of a worker that was asked to end
REFUSED, BROKEN, DYING = "refused", "broken", "dying"  # events of a worker that ends
MOST_DEATHS = 2  # workers that may die on one cell before the cell is called failed


class Worker:
    """One worker process, the pipe it tells its events through, and the cell it is doing.

    A pipe of its own: a worker that is killed while it writes to a shared queue would block the others.
    """

    def __init__(self, laboratory: Laboratory, machine: Machine, configs: Sequence[Config]) -> None:
        forks.begin()
        self.events, theirs = forks.CONTEXT.Pipe(duplex=False)
        self.process = forks.CONTEXT.Process(target=_worker, args=(  # no daemon: it may have processes of its own, that decode
            laboratory.models, machine, laboratory.out, list(configs), theirs))
        self.process.start()
        theirs.close()
        self.cell, self.said = "", ""

    def read(self) -> Event | None:
        """The next event, None if the worker has ended. A UsageError if it cannot do its cells, a RunFailed if nobody could."""
        try:
            event = self.events.recv()
        except EOFError:
            return None
        if event.kind == REFUSED:
            raise UsageError(event.reason)
        if event.kind == BROKEN:
            raise RunFailed(event.reason)
        if event.kind == DYING:
            self.said = event.reason
            return self.read()
        self.cell = event.cell if event.kind == "started" else ""
        return event

    def last_words(self) -> str:
        """Why it has ended, as far as that is known."""
        code = self.process.exitcode or 0
        killed = f"killed by signal {-code}{', which often means out of memory' * (code == -signal.SIGKILL)}"
        return self.said or (killed if code < 0 else f"exit code {code}")


class Pool:
    """The workers of one sweep."""

    def __init__(self, laboratory: Laboratory, configs: Sequence[Config], workers: int) -> None:
        self.laboratory, self.cells = laboratory, {config.hash(): Cell(laboratory.out, config) for config in configs}
        self.deaths: Counter[str] = Counter()
        self.workers: dict[int, Worker] = {}
        try:
            for place in range(workers):
                self.workers[place] = self._start(place)
        except BaseException:
            self.stop()
            raise

    def _start(self, place: int) -> Worker:
        machine, device = self.laboratory.machine, self.laboratory.device
        if device.type == "cuda" and device.index is None:
            machine = replace(machine, device=f"cuda:{place % torch.cuda.device_count()}")
        return Worker(self.laboratory, machine, [cell.config for cell in self.cells.values()])

    def tend(self) -> list[Event]:
        """Wait a moment for events; replace workers that died, let those go that are done. Returns what has happened."""
        happened = []
        ready = wait([worker.events for worker in self.workers.values()], PATIENCE)
        for place, worker in list(self.workers.items()):
            if worker.events not in ready:
                continue
            event = worker.read()
            if event is not None:
                happened.append(event)
                continue
            worker.process.join()
            del self.workers[place]
            if worker.process.exitcode != 0:
                happened += self._bury(worker)
                self.workers[place] = self._start(place)
        return happened

    def _bury(self, worker: Worker) -> list[Event]:
        """A worker died. After the second death on one cell the cell is called failed, which is returned as what has happened;
        outside any cell the sweep is."""
        self.deaths[worker.cell] += 1
        if self.deaths[worker.cell] < MOST_DEATHS:
            return []
        if not worker.cell:
            raise RunFailed(f"worker processes die before they start a run: {worker.last_words()}")
        cell = self.cells[worker.cell]
        if not cell.over():
            cell.fail(f"its worker died twice: {worker.last_words()}")
        return [Event("failed" if cell.failure() else "finished", cell.name, cell.label)]

    def stop(self) -> None:
        """End the workers and wait for them."""
        for worker in self.workers.values():
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join()


def _worker(models: Models, machine: Machine, out: Path, configs: list[Config], events: Connection) -> None:
    """A worker process; it ends when its parent does or asks it to, and leaves a checkpoint of what it was doing."""
    warnings.filterwarnings("ignore", message=".* of the weights stay dense")  # as the sweep has said once
    stop, parent = Stop(), multiprocessing.parent_process()
    stop.hush()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal signals the whole group; the parent decides
    signal.signal(signal.SIGTERM, stop.ask)
    try:
        laboratory = Laboratory(models, machine, out, stop)
        work(laboratory, configs, events.send, parent.is_alive if parent is not None else lambda: True)
    except KeyboardInterrupt:  # Stopped is one
        sys.exit(STOPPED)
    except UsageError as error:
        _tell(events, REFUSED, str(error))
    except OSError as error:  # a full disk, which every cell would meet
        _tell(events, BROKEN, described(error))
        sys.exit(f"popup: a worker ends: {described(error)}")
    except Exception as error:  # a GPU that is lost
        _tell(events, DYING, described(error))
        sys.exit(f"popup: a worker ends: {described(error)}")


def _tell(events: Connection, kind: str, reason: str) -> None:
    with contextlib.suppress(OSError):  # there may be nobody to tell
        events.send(Event(kind, "", reason=reason))


def default_workers(laboratory: Laboratory, configs: Sequence[Config]) -> int:
    """What fits the machine: one worker a GPU, else as many as its cores can give each run's threads."""
    if laboratory.device.type == "cuda":
        return torch.cuda.device_count() if laboratory.device.index is None else 1
    threads = laboratory.machine.threads_for(laboratory.data(configs[0]).train[0].nbytes)
    return max(1, min(len(configs), usable_cores() // threads))


def run_sweep(laboratory: Laboratory, configs: Sequence[Config], workers: int) -> list[Cell]:
    """Do all cells of `configs`, with a bar. Returns them; those that failed know why."""
    cells = [Cell(laboratory.out, config) for config in configs]
    for cell in cells if laboratory.ranks.first else []:
        cell.forget_failure()
    left = [cell.config for cell in cells if not cell.finished()]
    with Bar(len(cells), len(cells) - len(left)) as bar:
        if workers == 1 or laboratory.ranks.count > 1:
            work(laboratory, left, lambda event: bar.show([event]))
        elif left:
            _run_pool(Pool(laboratory, left, min(workers, len(left))), bar)
    return cells


def _run_pool(pool: Pool, bar: Bar) -> None:
    try:
        while pool.workers:
            bar.show(pool.tend())
    finally:
        pool.stop()


class Bar:
    """One bar for the grid, with what is running; without a terminal about twenty plain lines."""

    def __init__(self, total: int, done: int) -> None:
        self.bar = tqdm(total=total, initial=done, disable=None, dynamic_ncols=True, bar_format=LINE)
        self.total, self.done, self.failed, self.began = total, done, 0, time.perf_counter()
        self.first, self.running, self.over = done, dict[str, str](), set[str]()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, events: Sequence[Event]) -> None:
        """Count what has ended, and name what runs."""
        for event in events:
            if event.kind == "started":
                self.running[event.cell] = event.label
                continue
            self.running.pop(event.cell, None)
            if event.cell in self.over:  # a worker that died while it said so
                continue
            self.over.add(event.cell)
            self.done += 1
            self.failed += event.kind == "failed"
            self.bar.update()
            self._line()
        if events:
            self.bar.set_postfix_str(self._now())

    def _now(self) -> str:
        """What has failed and what runs: one run by its label, the others by their number."""
        more = f" and {len(self.running) - 1} more" if len(self.running) > 1 else ""
        running = f"{next(iter(self.running.values()))}{more}" if self.running else ""
        return "; ".join(filter(None, (f"{self.failed} failed" if self.failed else "", running)))

    def _line(self) -> None:
        if self.bar.disable and (self.done == self.total or self.done % max(1, self.total // 20) == 0):
            spent = time.perf_counter() - self.began
            rest = spent / max(1, self.done - self.first) * (self.total - self.done)
            print(f"{self.done} of {self.total} runs done, {self.failed} failed, about {rest:.0f} s left", flush=True)

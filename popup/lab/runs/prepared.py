"""A run that can be done. What it can be refused for is told here, before it has a directory; what is made here is run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.machine import PeakMemory
from popup.lab.runs.anew import check_anew
from popup.lab.runs.attached import attach_plain
from popup.lab.runs.checks import check_place
from popup.lab.runs.control_run import ControlRun, ready_control
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import make_plain
from popup.lab.runs.ticket_run import TicketRun, ready_ticket


@dataclass(frozen=True)
class Prepared:
    """A run's config and data, what is left to do, and what its time and memory are counted from."""

    config: Config
    data: Dataset
    network_fingerprint: str
    rest: TicketRun | ControlRun
    began: float
    memory: PeakMemory


def prepare(laboratory: Laboratory, config: Config) -> Prepared:
    """Everything of a run that can be refused: a UsageError then, or a RunFailed where a control's ticket is gone, or where the
    ranks have not the same data and network."""
    with laboratory.ranks.together():
        prepared = _prepared(laboratory, config)
    for what, value in (("data", prepared.data.fingerprint), ("network", prepared.network_fingerprint)):
        laboratory.ranks.check_equal(f"the {what}", value, f"is the {what} a function of yours that makes another one in each "
                                     "process, or do the machines hold other files?")
    return prepared


def _prepared(laboratory: Laboratory, config: Config) -> Prepared:
    memory, began = PeakMemory(laboratory.device), time.perf_counter()
    check_place(laboratory, config)
    check_anew(laboratory, config)
    plain = make_plain(laboratory, config)
    rest: TicketRun | ControlRun
    if config.task.role == TICKET:
        rest = ready_ticket(laboratory, attach_plain(laboratory, plain))
    else:
        rest = ready_control(laboratory, plain)
    return Prepared(config, plain.data, plain.network_fingerprint, rest, began, memory)

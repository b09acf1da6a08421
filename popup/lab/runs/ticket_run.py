"""The last steps of a ticket's run: what is ready is searched, proved, and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from popup.lab.data.dataset import Dataset
from popup.lab.runs.about import about_run
from popup.lab.runs.attached import Attached
from popup.lab.runs.directory import RunDirectory
from popup.lab.runs.found import Found
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.diagnostics import diagnose
from popup.lab.training.fit import Outcome, Ready, make_ready, proved, search
from popup.lab.training.state import Metrics
from popup.lab.training.stop import RunFailed
from popup.search.network import densities
from popup.ticket.file import TicketError
from popup.ticket.ticket import extract, load


@dataclass(frozen=True)
class TicketRun:
    """A search that can begin, and the data that it is on."""

    laboratory: Laboratory
    data: Dataset
    ready: Ready

    def find(self, directory: RunDirectory, tell: Callable[[Metrics], None], checkpoints: Checkpoints) -> Found:
        """Find the ticket, prove the laws on it, and save it."""
        outcome = proved(self.ready, search(self.ready, tell, checkpoints))
        diagnostics = self._write(outcome, directory) if self.laboratory.ranks.first else {}
        return Found(outcome.history, densities(self.ready.net), outcome.precision, outcome.proof, diagnostics)

    def _write(self, outcome: Outcome, directory: RunDirectory) -> dict[str, Any]:
        """Save the ticket. What is diagnosed is the one that the file holds, its source drawn again from that."""
        config, data = self.ready.config, self.data
        about = about_run(config, data, outcome.test_accuracy, outcome.precision, outcome.normalise)
        extract(self.ready.net, about).save(directory.ticket)
        try:
            return diagnose(load(directory.ticket), build(self.laboratory, config), data.image)
        except TicketError as error:
            raise RunFailed(f"the ticket that it has saved cannot be used again: {error}") from None


def ready_ticket(laboratory: Laboratory, attached: Attached) -> TicketRun:
    """The run of an attached network. A UsageError if its data cannot be searched with."""
    data = attached.data
    return TicketRun(laboratory, data, make_ready(attached.net, data.train, data.test, attached.config, laboratory.ranks))

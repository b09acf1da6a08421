"""The last steps of a ticket's run: what is ready is searched, its ticket written, and what the file holds proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from popup.errors import UsageError
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
from popup.search.summary import summary
from popup.ticket.file import TicketError
from popup.ticket.ticket import Ticket, extract, load


@dataclass(frozen=True)
class TicketRun:
    """A search that can begin, and the data that it is on."""

    laboratory: Laboratory
    data: Dataset
    ready: Ready
    network_fingerprint: str  # as of its Plain

    def find(self, directory: RunDirectory, tell: Callable[[Metrics], None], checkpoints: Checkpoints) -> Found:
        """Find the ticket, save it, and prove the laws on what the file holds, in a network that is built anew."""
        history = search(self.ready, tell, checkpoints)
        if not self.laboratory.ranks.first:
            return self._found(proved(self.ready, history), {}, None)
        try:
            ticket, plain = self._write(history, directory), build(self.laboratory, self.ready.config)
            outcome = proved(self.ready, history, ticket, plain)
            return self._found(outcome, diagnose(ticket, plain, self.data.image), ticket.least_bytes())
        except TicketError as error:
            raise RunFailed(f"the ticket that it has saved cannot be used again: {error}") from None

    def _found(self, outcome: Outcome, diagnostics: dict[str, Any], ticket_bytes: int | None) -> Found:
        net = self.ready.net
        return Found(outcome.history, densities(net), outcome.precision, outcome.compute, outcome.proof, diagnostics,
                     summary(net).dense, ticket_bytes)

    def _write(self, history: list[Metrics], directory: RunDirectory) -> Ticket:
        """Save the ticket, and read it back: what is proved and diagnosed is what the file holds."""
        ready = self.ready
        about = about_run(ready.config, self.data, history[-1], ready.precision.name, ready.batches.normalise,
                          self.network_fingerprint)
        try:
            ticket = extract(ready.net, about)
        except UsageError as error:  # something has changed what may not change
            raise RunFailed(f"a law is broken: {error}") from None
        return load(ticket.save(directory.ticket))


def ready_ticket(laboratory: Laboratory, attached: Attached) -> TicketRun:
    """The run of an attached network. A UsageError if its data cannot be searched with."""
    data = attached.data
    ready = make_ready(attached.net, data.train, data.test, attached.config, laboratory.ranks)
    return TicketRun(laboratory, data, ready, attached.network_fingerprint)

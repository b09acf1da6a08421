"""What a ticket says of its run, so that `eval` can repeat its accuracy from the file alone (popup/ticket/file.py)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.inputs import Tokens
from popup.lab.measure import measure_of
from popup.lab.training.batches import Normalise
from popup.lab.training.state import Metrics
from popup.ticket.file import TicketError
from popup.ticket.sealed import finite
from popup.ticket.ticket import Ticket


def about_run(config: Config, data: Dataset, last: Metrics, precision: str, normalise: Normalise,
              network_fingerprint: str = "") -> dict[str, Any]:
    """`last`: the last epoch's metrics; `precision`: that they were measured in; `network_fingerprint`: of a function of the
    user's."""
    measure, learned = measure_of(data.test[1]), {"temperature": last["temperature"]} if "temperature" in last else {}
    own = {"network_fingerprint": network_fingerprint} if network_fingerprint else {}
    tokens = {"vocabulary": data.image.vocabulary} if isinstance(data.image, Tokens) else {}
    return {"task": asdict(config.task), measure.column: last[measure.column], "data": data.title,
            "data_fingerprint": data.identity(), "precision": precision, "evaluated_on": data.evaluated_on,
            "image": data.image, "classes": data.classes, "normalise": normalise.record(), **tokens, **learned, **own}


def recorded_temperature(ticket: Ticket) -> float:
    """What the loss multiplies logits by: 1 unless it was learned."""
    found = ticket.about.get("temperature", 1.0)
    if not (finite(found) and found > 0):
        raise TicketError(f"the ticket records the temperature {found!r:.40}: it is a number above 0")
    return float(found)

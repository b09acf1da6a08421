"""What edge-popup finds in the source in which a ticket was built."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from popup.lab.config import Config
from popup.lab.data.streamed import in_memory
from popup.lab.runs.existence import Built, source_config
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.lab.runs.targets import Trained
from popup.lab.training.batches import Normalise
from popup.lab.training.fit import fit
from popup.lab.training.state import Metrics
from popup.lab.training.training import EVALUATION_BATCH
from popup.search.attach import attach_recipe
from popup.search.settings import SearchSettings
from popup.ticket.ticket import Ticket, extract


@dataclass(frozen=True)
class Found:
    """The ticket that edge-popup found in the same source, its accuracy in percent, and CPU seconds."""

    ticket: Ticket
    accuracy: float
    seconds: float


def search_ticket(laboratory: Laboratory, config: Config, trained: Trained, built: Built, epochs: int,
                  on_epoch: Callable[[Metrics], None] = lambda metrics: None) -> Found:
    """Edge-popup in the same source (the same S_ER and weights), keeping as many edges as the built ticket (up to one a
    layer), but the same share of each layer. (Its scores have no weight decay, which is the target's training's.)

    The logits of such a source are some thousand, so its loss is taken of logits divided by their deviation at the start.
    """
    began = time.process_time()
    own = source_config(config, built.ticket.recipe, trained.target, built.plan).replace(epochs=epochs, weight_decay=0.0)
    net, data = build(laboratory, own), laboratory.data(own)
    attach_recipe(net, own.source, SearchSettings())
    with torch.no_grad():
        images = Normalise(data.train[0])(in_memory(data.train[0])[:EVALUATION_BATCH]).to(laboratory.device)
        deviation = float(net(images).std()) or 1.0
    hook = net.register_forward_hook(lambda module, inputs, logits: torch.as_tensor(logits) / deviation)
    outcome = fit(net, data.train, data.test, own, on_epoch)
    hook.remove()
    return Found(extract(net), outcome.test_accuracy, time.process_time() - began)

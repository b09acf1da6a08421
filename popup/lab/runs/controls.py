"""Controls: what a ticket's accuracy is compared with, in the ticket's own source, at its counts, on its data.

A control is a run of its own, whose config differs from its ticket's in `role`. A new one is a function (subnetwork.py,
magnitude.py) and a line in CONTROLS. Norms get fresh statistics from training data in each of them, as the ticket's do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import sqrt

from popup.lab.config import Config
from popup.lab.runs.magnitude import globally, layerwise
from popup.lab.runs.subnetwork import (
    Subnetwork,
    random_subnetwork,
    redrawn_weights,
    shuffled_mask,
    whole_source,
    whole_ticket,
)
from popup.search.settings import SearchSettings
from popup.source.layer_source import LayerSource
from popup.source.masks import COMPUTED

TICKET, DENSE = "ticket", "dense_trained"


@dataclass(frozen=True)
class Control:
    """`build` gives each layer's edges and weights; `trained` says whether the weights then learn, `fresh` whether from new
    values in place of those.

    `fixed` holds config fields that do not matter to it, at one value each: runs that differ in them only are one run. `prunes`:
    it begins with the weights of the run DENSE. `usual`: a sweep has it unasked.
    """

    title: str
    build: Callable[[Subnetwork], list[LayerSource]]
    trained: bool = False
    fresh: bool = True
    fixed: tuple[tuple[str, object], ...] = ()
    prunes: bool = False
    usual: bool = True

    @property
    def needs_ticket(self) -> bool:
        """Whether the ticket must have been found before; its mask is not used where k is fixed at 1."""
        return ("k", 1.0) not in self.fixed


TRAINED_GAIN = sqrt(2)  # of He et al., 2015, whatever gain suits a search
SEARCH_ONLY = (*((part.name, part.default) for part in fields(SearchSettings)), ("k", 1.0), ("weights", "kaiming_normal"),
               ("scale", "final"), ("gain", TRAINED_GAIN), ("lr", 0.1), ("optimizer", "sgd"),
               ("temperature", "fixed"), ("compute", "dense"),
               ("count", "nearest"), ("ticket_density", "source"), ("finetune_epochs", 0))
SOURCE_ONLY = (("er_p", 1.0), ("density", "uniform"), ("redistribute", True), ("mask", "bernoulli"), ("bias", "zero"),
               ("connected", False))

CONTROLS: dict[str, Control] = {
    "random": Control("random subnetwork", random_subnetwork),
    "shuffled": Control("shuffled mask", shuffled_mask),
    "redrawn": Control("redrawn weights", redrawn_weights),
    "source": Control("unpruned source", whole_source),
    "random_trained": Control("random subnetwork, weights trained", random_subnetwork, trained=True),
    "er_trained": Control("ER source, weights trained", whole_source, trained=True, fixed=SEARCH_ONLY),
    DENSE: Control("dense network, weights trained", whole_source, trained=True, fixed=SEARCH_ONLY + SOURCE_ONLY),
    "ticket_trained": Control("the ticket, its weights trained", whole_ticket, trained=True, fresh=False, usual=False),
    "shuffled_trained": Control("shuffled mask, its weights trained", shuffled_mask, trained=True, fresh=False, usual=False),
    "redrawn_trained": Control("redrawn weights, trained", redrawn_weights, trained=True, fresh=False, usual=False),
    "magnitude_trained": Control("dense network trained, each layer pruned by magnitude, fine-tuned", layerwise, trained=True,
                                 fresh=False, prunes=True, usual=False),
    "magnitude_global_trained": Control("dense network trained, pruned by magnitude as a whole, fine-tuned", globally,
                                        trained=True, fresh=False, prunes=True, usual=False),
}


def control_config(config: Config, role: str) -> Config:
    """The config of a ticket's control. Where its mask is computed from the weights, they are those of the ticket."""
    fixed = dict(CONTROLS[role].fixed)
    if fixed.get("mask", config.source.mask) in COMPUTED:
        fixed = {name: value for name, value in fixed.items() if name not in ("weights", "scale", "gain")}
    return config.replace(role=role, **fixed)


def needed(config: Config) -> list[Config]:
    """The runs that must be finished before the one of `config` can begin: a control's ticket, and the dense network."""
    if config.task.role == TICKET:
        return []
    control = CONTROLS[config.task.role]
    ticket = [config.replace(role=TICKET)] if control.needs_ticket else []
    return ticket + ([control_config(config, DENSE)] if control.prunes else [])

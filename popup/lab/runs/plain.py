"""The first step of a run: its data, and the plain network of its config."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.identity import described, fingerprint, held
from popup.lab.networks import build_network, is_own
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import BuiltAnew, Laboratory


@dataclass(frozen=True)
class Plain:
    """A config with its data and its plain network, on the device, which the next step attaches or makes a control."""

    config: Config
    data: Dataset
    net: nn.Module
    network_fingerprint: str  # of a function of the user's: tells the network from another of its name; of others empty


def build(laboratory: Laboratory, config: Config) -> nn.Module:
    """The plain network of a config, on the device; each call builds another."""
    data = laboratory.data(config)
    return build_network(laboratory.models, config, data.image, data.classes).to(laboratory.device)


def make_plain(laboratory: Laboratory, config: Config) -> Plain:
    """Load the data and build the network."""
    net = build(laboratory, config)
    return Plain(config, laboratory.data(config), net, network_fingerprint(laboratory, config, net))


def network_fingerprint(laboratory: Laboratory, config: Config, net: nn.Module) -> str:
    """What tells the network `net` that a config's function has built from another that it may build tomorrow; empty where the
    function is no user's."""
    if not is_own(config.task.model):
        return ""
    known = laboratory.built_anew.get(replace(config.task, role=TICKET)) or BuiltAnew(frozenset(), by_seed=False)
    where = f", seed {config.source.seed}" if known.by_seed else ""
    return fingerprint(described(net) | held(net), known.varying, where)

"""The first step of a run: its data, and the plain network of its config."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.networks import build_network, fingerprint, is_own
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.randomness import building


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
    with building(config.source.seed):
        return build_network(laboratory.models, config, data.image, data.classes).to(laboratory.device)


def make_plain(laboratory: Laboratory, config: Config) -> Plain:
    """Load the data and build the network."""
    net = build(laboratory, config)
    return Plain(config, laboratory.data(config), net, fingerprint(net) if is_own(config.task.model) else "")

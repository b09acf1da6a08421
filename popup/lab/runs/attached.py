"""The second step of a ticket's run: the network with its source and its first scores, as it is searched."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import Plain
from popup.lab.training.attachment import attach_config


@dataclass(frozen=True)
class Attached:
    """A config with its data and its attached network, on the device."""

    config: Config
    data: Dataset
    net: nn.Module
    network_fingerprint: str  # as of its Plain


def attach_plain(laboratory: Laboratory, plain: Plain) -> Attached:
    """The network of `plain`, which is spent, as the source of its config. A UsageError for what cannot be searched."""
    net = attach_config(plain.net, plain.config, plain.data.train).to(laboratory.device)
    return Attached(plain.config, plain.data, net, plain.network_fingerprint)

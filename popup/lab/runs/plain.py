"""The first step of a run: its data, and the plain network of its config."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.identity import DRAWN, described, fingerprint, held, kept, summed
from popup.lab.networks import build_network, is_own
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import BuiltAnew, Laboratory
from popup.source.frozen import written_by_freeze


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
    known = laboratory.built_anew.get(replace(config.task, role=TICKET)) or BuiltAnew()
    return fingerprint(identity(net, config), known.varying, known.by_seed, config.source.seed)


def identity(net: nn.Module, config: Config) -> dict[str, str]:
    """All that tells the network from another, by name: what it is made of, and what it has that the source does not draw."""
    drawn = {f"{name} {DRAWN}": summed(parameter) for name, parameter in unmasked(net, config)}
    return described(net) | held(net) | kept(net) | drawn


def unmasked(net: nn.Module, config: Config) -> list[tuple[str, nn.Parameter]]:
    """The parameters that neither the source of `config` draws nor a search sets, with their names."""
    masked = {name for layer in config.source.layers(net) for name in layer.names}
    written = {id(tensor) for tensor in written_by_freeze(net)}
    return [(name, each) for name, each in net.named_parameters() if name not in masked and id(each) not in written]

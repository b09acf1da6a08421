"""The result of a search: a recipe, one bit an edge, the norm statistics. It rebuilds the sparse network exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.search.network import LayerDensity, density_row, search_of
from popup.search.settings import SearchSettings
from popup.source.layers import Layer, find_layers, is_norm, owner
from popup.source.recipe import LayerSource, Recipe, draw_layer
from popup.ticket import file
from popup.ticket.file import TicketError
from popup.ticket.hashes import hash_array


@dataclass(frozen=True)
class TicketLayer:
    """One layer: its p_l, S_P over its edges (bool, ascending edge index), and the hashes of what the seed gives."""

    layer: Layer
    p_l: float
    selected: np.ndarray  # [edges]
    edges_hash: str
    weights_hash: str

    def source(self, recipe: Recipe) -> LayerSource:
        """Draw the layer's source again, and refuse it if it is not the one the ticket was found in."""
        source = draw_layer(recipe, self.layer, self.p_l)
        if hash_array(source.edges) != self.edges_hash or len(source.edges) != len(self.selected):
            raise TicketError(f"{self.layer.name}: the seed gives other edges than the ticket records")
        if hash_array(source.values) != self.weights_hash:
            raise TicketError(f"{self.layer.name}: the seed gives other weights than the ticket records")
        return source

    @classmethod
    def unpack(cls, record: Mapping[str, Any], bits: torch.Tensor) -> TicketLayer:
        """The layer of a file's record and packed mask; a TicketError if the mask is not the one that was saved."""
        array, edges = bits.numpy(), record["edges"]
        if hash_array(array) != record["mask_hash"] or len(array) != (edges + 7) // 8:
            raise TicketError(f"the mask of {record['name']} is not the one that was saved")
        selected = np.unpackbits(array, count=edges, bitorder="little").view(bool)
        return cls(Layer(record["name"], tuple(record["shape"])), record["p_l"], selected, record["edges_hash"],
                   record["weights_hash"])

    def pack(self) -> tuple[dict[str, Any], torch.Tensor]:
        """The layer's record and packed mask, one bit an edge, as they stand in a file."""
        bits = np.packbits(self.selected, bitorder="little")
        record = {"name": self.layer.name, "shape": self.layer.shape, "p_l": self.p_l, "edges": len(self.selected),
                  "kept": int(self.selected.sum()), "edges_hash": self.edges_hash,
                  "weights_hash": self.weights_hash, "mask_hash": hash_array(bits)}
        return record, torch.from_numpy(bits)

    def weight(self, recipe: Recipe) -> torch.Tensor:
        """W * S_P as a float32 tensor of the layer's shape."""
        source = self.source(recipe)
        dense = np.zeros(self.layer.entries, dtype=np.float32)
        dense[source.edges[self.selected]] = source.values[self.selected]
        return torch.from_numpy(dense).view(self.layer.shape)


@dataclass(frozen=True)
class Ticket:
    """A strong lottery ticket. `about` is what the run recorded: model, data set, accuracy."""

    recipe: Recipe
    settings: SearchSettings
    layers: tuple[TicketLayer, ...]
    statistics: dict[str, torch.Tensor]                 # buffers by name, running statistics among them
    given: dict[str, torch.Tensor]                      # other frozen parameters, as the network had them
    constants: dict[str, tuple[float, tuple[int, ...]]]  # biases (0) and norm affines (1, 0), with their shapes
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write the ticket as a safetensors file (its format: popup/ticket/file.py). Equal tickets give equal bytes."""
        packed = {layer.layer.name: layer.pack() for layer in self.layers}
        tensors = {f"mask/{name}": bits for name, (_, bits) in packed.items()}
        tensors |= {f"statistics/{name}": tensor.contiguous() for name, tensor in self.statistics.items()}
        tensors |= {f"given/{name}": tensor.contiguous() for name, tensor in self.given.items()}
        metadata = {"recipe": self.recipe.record(), "settings": asdict(self.settings), "constants": self.constants,
                    "layers": [record for record, _ in packed.values()], "about": self.about}
        file.write(Path(path), metadata, tensors)
        return Path(path)

    def densities(self) -> list[LayerDensity]:
        """One row a layer."""
        return [density_row(layer.layer, layer.p_l, len(layer.selected), int(layer.selected.sum()))
                for layer in self.layers]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The whole plain network as tensors by parameter name, weights dense and float32."""
        weights = {layer.layer.name: layer.weight(self.recipe) for layer in self.layers}
        constants = {name: torch.full(shape, value) for name, (value, shape) in self.constants.items()}
        return weights | constants | self.given | self.statistics

    def apply(self, net: nn.Module) -> nn.Module:
        """Make the plain network `net` this ticket, in place: sparse weights, all frozen. Returns `net`.

        Raises TicketError, before anything is changed, if `net` has other layers than the ticket.
        """
        self._check_layers(net)
        state = self.state_dict()
        _check_same("parameter or buffer", state, net.state_dict())
        with torch.no_grad():
            net.load_state_dict(state)
        return net.requires_grad_(False)

    def _check_layers(self, net: nn.Module) -> None:
        mine = {layer.layer.name: layer.layer.shape for layer in self.layers}
        theirs = {layer.name: layer.shape for layer in find_layers(net)}
        _check_same("layer", {name: torch.empty(shape, device="meta") for name, shape in mine.items()},
                    {name: torch.empty(shape, device="meta") for name, shape in theirs.items()})


def _check_same(kind: str, mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """The same names with the same shapes on both sides, or a TicketError that names the first difference."""
    for name in sorted(mine.keys() ^ theirs.keys()):
        where = "the ticket has a" if name in mine else "the network has a"
        raise TicketError(f"{where} {kind} {name!r} that the other lacks: the ticket is of another architecture")
    for name, tensor in mine.items():
        if tensor.shape != theirs[name].shape:
            raise TicketError(f"{kind} {name!r} has shape {list(theirs[name].shape)} in the network and "
                              f"{list(tensor.shape)} in the ticket: the ticket is of another architecture")


def extract(net: nn.Module, about: Mapping[str, Any] | None = None) -> Ticket:
    """The ticket that an attached network holds now. `about`: what to record with it, as JSON values."""
    search = search_of(net)
    layers = tuple(
        TicketLayer(layer.layer, layer.p_l, mask.cpu().numpy(), hash_array(layer.flat_edges().cpu().numpy()),
                    hash_array(layer.values.cpu().numpy()))
        for layer, mask in zip(search.layers, search.select(), strict=True))
    constants, given = _other_parameters(net, {id(score) for score in search.scores()})
    parameters = {name for name, _ in net.named_parameters(remove_duplicate=False)}
    statistics = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()
                  if name not in parameters}
    return Ticket(search.recipe, search.settings, layers, statistics, given, constants, dict(about or {}))


def _other_parameters(net: nn.Module, learned: set[int]) -> tuple[dict, dict]:
    """What is no score: biases and norm affines by value and shape where `attach` left them so, all others as tensors."""
    constants, given = {}, {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if id(parameter) in learned:
            continue
        module, attribute = owner(net, name)
        value = 0.0 if attribute.endswith("bias") else 1.0
        constant = attribute.endswith("bias") or (attribute == "weight" and is_norm(module))
        if constant and bool((parameter == value).all()):
            constants[name] = (value, tuple(parameter.shape))
        else:
            given[name] = parameter.detach().cpu().clone()
    return constants, given


def load(path: str | Path) -> Ticket:
    """Read a ticket. Raises TicketError for anything but a whole ticket, OSError for what the system refuses."""
    metadata, tensors = file.read(Path(path))
    try:
        return _unpack(metadata, tensors)
    except TicketError as error:
        raise TicketError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TicketError(f"{path} is not a whole ticket ({type(error).__name__}: {error})") from None


def _unpack(metadata: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> Ticket:
    layers = tuple(TicketLayer.unpack(record, tensors.pop(f"mask/{record['name']}")) for record in metadata["layers"])
    rooms: dict[str, dict[str, torch.Tensor]] = {"statistics": {}, "given": {}}
    for name, tensor in tensors.items():
        room, _, rest = name.partition("/")
        rooms[room][rest] = tensor
    constants = {name: (float(value), tuple(shape)) for name, (value, shape) in metadata["constants"].items()}
    return Ticket(Recipe(**metadata["recipe"]), SearchSettings(**metadata["settings"]), layers, rooms["statistics"],
                  rooms["given"], constants, metadata["about"])

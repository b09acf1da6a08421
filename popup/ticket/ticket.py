"""The result of a search: a recipe, a code an edge, the norm statistics. It rebuilds the sparse network exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.search.contract import foreign_codes
from popup.search.density import Densities, density_row
from popup.search.layer_state import LayerState
from popup.search.methods import TICKET_METHODS
from popup.search.network import search_of, unwrapped
from popup.search.search import Search
from popup.search.settings import SearchSettings
from popup.search.states import is_search_state
from popup.source.books import Book, Drawn
from popup.source.frozen import is_norm
from popup.source.layers import Layer, locate, named_layers, with_further
from popup.source.recipe import GIVEN, Recipe
from popup.source.storable import refuse_unstorable
from popup.source.undo import all_or_nothing
from popup.ticket import contents, file
from popup.ticket.file import TicketError
from popup.ticket.filling import check_network, planned, provide, write_all
from popup.ticket.hashes import hash_array
from popup.ticket.layer import TicketLayer, own_weights
from popup.ticket.same import check_same
from popup.ticket.sealed import Metadata, Tensors, one_line
from popup.ticket.sparse import left_dense, put_in
from popup.ticket.sparse_linear import SparseLinear
from popup.ticket.trainable import held_fixed, hold_zeros

NAME = "ticket.safetensors"  # of the file in a directory of save_pretrained


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A strong lottery ticket. `about` is what the run recorded: model, data set, accuracy."""

    recipe: Recipe
    settings: SearchSettings
    layers: tuple[TicketLayer, ...]
    statistics: dict[str, torch.Tensor]                 # buffers by name, running statistics among them
    given: dict[str, torch.Tensor]                      # other frozen parameters, as the network had them
    constants: dict[str, tuple[float, tuple[int, ...]]]  # biases (0) and norm affines (1, 0), with their shapes
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, *, embed_weights: bool = False, compress: bool = False) -> Path:
        """Write the ticket as a safetensors file (its format: popup/ticket/file.py). Equal tickets give equal bytes.

        `embed_weights` stores the weights of the edges too, 4 bytes each, so that no seed is needed for them (weights
        'given' are always stored). `compress` codes each mask to near its entropy where that is smaller: for k
        below 0.35 or above 0.65 or so. Raises OSError for what the system refuses; the old file is then as it was.
        """
        metadata, tensors = self._pack(embed_weights, compress)
        file.write(Path(path), metadata, tensors, file.format_of(self.book))
        return Path(path)

    def _pack(self, embed_weights: bool, compress: bool) -> tuple[Metadata, Tensors]:
        packed = [layer.pack(embed_weights, self.recipe, self.book, compress) for layer in self.layers]
        tensors = {name: tensor for _, own in packed for name, tensor in own.items()}
        tensors |= {f"statistics/{name}": tensor.contiguous() for name, tensor in self.statistics.items()}
        tensors |= {f"given/{name}": tensor.contiguous() for name, tensor in self.given.items()}
        book = {} if file.format_of(self.book) == 1 else {"book": self.book.record()}
        return {"recipe": self.recipe.record(), "settings": self.settings.record(), "constants": self.constants,
                "layers": [record for record, _ in packed], "about": self.about, **book}, tensors

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ticket.safetensors into `directory`, which is made if need be. Returns the file's path."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        return self.save(Path(directory) / NAME)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Ticket:
        """The ticket that `save_pretrained` wrote into `directory`."""
        return load(Path(directory) / NAME)

    @property
    def book(self) -> Book:
        """The code book of the method that found it: what the codes of its edges mean."""
        return TICKET_METHODS[self.settings.method](self.settings).book

    def least_bytes(self) -> int:
        """The bytes of the edges' codes as a compressed file holds them (`save` with `compress`), all else left out: what the
        ticket itself takes, whatever its names and settings do."""
        packed = [layer.pack(False, self.recipe, self.book, compress=True)[1] for layer in self.layers]
        return sum(tensor.nbytes for tensors in packed for tensor in tensors.values())

    def densities(self) -> Densities:
        """One row a layer."""
        return Densities(density_row(layer.spec, layer.p_l, len(layer.codes), layer.kept, layer.k) for layer in self.layers)

    def __repr__(self) -> str:
        entries, kept = (sum(counts) for counts in zip(*((row.entries, row.kept) for row in self.densities()), strict=True))
        dense = sum(tensor.numel() for tensor in self.given.values())
        beside = f", {dense:,} dense ones beside" if dense else ""
        return (f"Ticket({self.settings.method}, seed {self.recipe.seed}: {kept:,} of {entries:,} weights ({kept / entries:.2%}) "
                f"in {len(self.layers)} layers{beside})")

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.densities()._repr_html_()}"

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The whole plain network as tensors by parameter name, weights dense and float32."""
        return self._weights(self.layers) | self.others()

    def _weights(self, layers: Iterable[TicketLayer]) -> dict[str, torch.Tensor]:
        """The dense weights of some layers by all their names."""
        made = ((layer.spec.names, layer.weight(self.recipe, self.book)) for layer in layers)
        return {name: weight for names, weight in made for name in names}

    def others(self) -> dict[str, torch.Tensor]:
        """What of the network is no layer: constants, given parameters, statistics."""
        constants = {name: torch.full(shape, value, device="cpu") for name, (value, shape) in self.constants.items()}
        return constants | self.given | self.statistics

    def apply(self, net: nn.Module, sparse: bool = False, trainable: bool = False) -> nn.Module:
        """Make the plain network `net` this ticket, in place: sparse weights, all frozen. Returns `net`.

        `trainable`: everything learns but the zeros, which stay zero in any optimiser (popup/ticket/trainable.py says how), and
        what the network holds fixed beside its weights; what is tied stays tied; `popup.ticket.release(net)` makes the weights
        plain parameters again.

        `sparse`: each nn.Linear becomes a SparseLinear, which holds the kept edges alone, but for those that
        `popup.ticket.left_dense(net, ticket.specs)` names. A network that was built on "meta" gets its memory here, so that no
        dense weight of such a layer is made at any time. Raises TicketError if `net` has other layers than the ticket, UsageError
        for a tensor that cannot be written to, learn, or get its memory here, and then changes nothing.
        """
        if sparse and trainable:
            raise UsageError("sparse layers are for inference: apply the ticket with trainable, and its weights stay dense")
        check_network(net, trainable)
        self.check_layers(net)
        dense = left_dense(net, self.specs) if sparse else {layer.spec.name for layer in self.layers}
        state = self._weights(layer for layer in self.layers if layer.spec.weight is not None or layer.spec.name in dense)
        state |= self.others()
        made = {layer.spec.name: self._sparse_layer(net, layer) for layer in self.layers if layer.spec.name not in state}
        shapes = {name: torch.empty(layer.spec.shape, device="meta") for layer in self.layers for name in layer.spec.names}
        check_same("parameter or buffer", shapes | state, net.state_dict())
        writes, fixed = planned(net, state, frozenset(made)), held_fixed(net)
        with all_or_nothing(net):
            provide(net, writes)
            put_in(net, made).requires_grad_(False)
            if trainable:
                hold_zeros(net, [(layer.spec, layer.mask(self.recipe)) for layer in self.layers], fixed)
            write_all(writes)
        return net

    def _sparse_layer(self, net: nn.Module, layer: TicketLayer) -> SparseLinear:
        """The kept edges of a layer in the place, and in the type, of its nn.Linear, which stays as it is. They are no tensors of
        inference mode, through which no gradient would reach inputs later."""
        weight: torch.Tensor = getattr(*locate(net, layer.spec.name))
        with torch.inference_mode(False):
            places, values = layer.kept_weights(self.recipe, self.book)
            return SparseLinear.at(places, values.to("cpu" if weight.is_meta else weight.device, weight.dtype), layer.spec.shape)

    @property
    def specs(self) -> list[Layer]:
        """Its layers by name and shape."""
        return [layer.spec for layer in self.layers]

    def check_layers(self, net: nn.Module) -> None:
        """A TicketError if the plain network `net` has other layers, by name or shape, than the ticket."""
        wanted = [replace(spec, name=name) for spec in self.specs for name in spec.names]
        mine = {layer.name: layer.shape for layer in wanted}
        theirs = {layer.name: layer.shape for layer in named_layers(net, wanted)}
        check_same("layer", {name: torch.empty(shape, device="meta") for name, shape in mine.items()},
                    {name: torch.empty(shape, device="meta") for name, shape in theirs.items()})


def extract(net: nn.Module, about: Mapping[str, Any] | None = None) -> Ticket:
    """The ticket that an attached network holds now. `about`: what to record with it, as JSON values. Raises UsageError, with
    its name, for a parameter that is no score and that something has changed since attach, and for a layer that training passes
    did not ask for its weight."""
    search, net = search_of(net), unwrapped(net)
    for layer in search.layers:
        layer.check_data()
    search.check_weights()
    search.check_asked()
    search.untouched.check(net, search.scores())
    layers = tuple(_layer(search, layer, codes.cpu().numpy())
                   for layer, codes in zip(search.layers, search.codes(), strict=True))
    refuse_unstorable(net)  # buffers may have become others
    constants, given = _other_parameters(net, {id(score) for score in search.scores()})
    parameters = {name for name, _ in net.named_parameters(remove_duplicate=False)}
    statistics = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()
                  if name not in parameters and isinstance(tensor, torch.Tensor) and not is_search_state(name)}
    return Ticket(search.recipe, search.settings, layers, statistics, given, constants, dict(about or {}))


def _layer(search: Search, layer: LayerState, codes: np.ndarray) -> TicketLayer:
    """One layer's part of the ticket."""
    if words := foreign_codes(layer, torch.from_numpy(codes)):
        raise UsageError(f"{layer.spec.name} has no ticket: {words}")
    source = layer.source()
    given = source.values.copy() if search.recipe.weights == GIVEN else None
    edges = None if search.recipe.draws_edges else source.edges
    weights = own_weights(Drawn(layer.recipe, source), layer.book, codes)
    return TicketLayer(layer.spec, layer.p_l, codes, hash_array(source.edges), hash_array(weights), given, edges, layer.own_k)


def _other_parameters(net: nn.Module,
                      learned: set[int]) -> tuple[dict[str, tuple[float, tuple[int, ...]]], dict[str, torch.Tensor]]:
    """What is no score: biases and norm affines by value and shape where `attach` left them so, all others as tensors."""
    constants, given = {}, {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if id(parameter) in learned:
            continue
        module, attribute = locate(net, name)
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
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        reason = one_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_line(error)}"
        raise TicketError(f"{path} is not a whole ticket: {reason}") from None


def _unpack(metadata: Mapping[str, Any], tensors: Tensors) -> Ticket:
    recipe, settings = contents.recipe(metadata["recipe"]), contents.settings(metadata["settings"])
    book = TICKET_METHODS[settings.method](settings).book
    if metadata["format"] != file.format_of(book) or (metadata["format"] > 1 and metadata["book"] != book.record()):
        raise ValueError(f"its codes are not of the book {book.name!r} of the method {settings.method}")
    layers: list[TicketLayer] = []
    for record in contents.records(metadata["layers"]):
        layers.append(TicketLayer.unpack(record, tensors, recipe, book, layers[-1].spec if layers else None))
    whole = with_further([layer.spec for layer in layers])
    layers = [replace(layer, spec=found) for layer, found in zip(layers, whole, strict=True)]
    specs, p_l = [layer.spec for layer in layers], [layer.p_l for layer in layers]
    contents.check_densities(recipe, specs, p_l, [len(layer.codes) for layer in layers])
    contents.check_shares(recipe, specs, p_l, [layer.k for layer in layers])
    constants = contents.constants(metadata["constants"], sum(layer.spec.entries for layer in layers))
    rooms: dict[str, Tensors] = {"statistics": {}, "given": {}}
    for name, tensor in tensors.items():
        room, _, rest = name.partition("/")
        if room not in rooms or not rest:
            raise ValueError(f"the tensor {name!r} is none of a ticket's")
        rooms[room][rest] = tensor
    names = Counter([*(name for layer in layers for name in layer.spec.names), *constants, *rooms["given"], *rooms["statistics"]])
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is there more than once, as a layer, a constant, given or a statistic")
    about = metadata["about"]
    if not isinstance(about, dict):
        raise ValueError("about is no object")
    return Ticket(recipe, settings, tuple(layers), rooms["statistics"], rooms["given"], constants, about)

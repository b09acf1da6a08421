"""One layer of a ticket: which of its edges are kept, and how to get the edges and their weights back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from popup.errors import UsageError
from popup.search.methods import Method
from popup.source.layers import Layer
from popup.source.recipe import GIVEN, LayerSource, Recipe, draw_again, draw_edges, draw_values
from popup.ticket import contents, masks
from popup.ticket.file import TicketError
from popup.ticket.hashes import hash_array
from popup.ticket.sealed import Tensors


@dataclass(frozen=True, eq=False)
class TicketLayer:
    """One layer: its p_l, S_P over its edges (bool, ascending edge index), and the hashes of what the seed gives.

    `edges`: their flat indices, ascending, int64, where no seed draws them (a mask that is given or computed).
    `values`: the frozen weights of the edges where they are known without the seed (weights 'given', or embedded).
    `redraws`: of methods that draw weights anew, which was each kept edge's last redraw; 0: none.
    """

    layer: Layer
    p_l: float
    selected: np.ndarray  # [edges]
    edges_hash: str
    weights_hash: str
    values: np.ndarray | None = None   # [edges], float32
    redraws: np.ndarray | None = None  # [edges], int32
    edges: np.ndarray | None = None    # [edges], int64

    @property
    def kept(self) -> int:
        """How many edges are kept."""
        return int(np.count_nonzero(self.selected))

    def source(self, recipe: Recipe) -> LayerSource:
        """Draw the layer's source again, and refuse it if it is not the one the ticket was found in."""
        edges = draw_edges(recipe, self.layer, self.p_l) if self.edges is None else self.edges
        if len(edges) != len(self.selected) or hash_array(edges) != self.edges_hash:
            raise TicketError(f"{self.layer.name}: the seed gives other edges than the ticket records")
        try:
            values = self.draw(recipe, edges) if self.values is None else self.values
        except UsageError as error:
            raise TicketError(f"the recipe draws nothing: {error}") from None
        if hash_array(values) != self.weights_hash:
            if self.layer.further:  # a file of before these counted: the whole bias has the first's deviation
                return replace(self, layer=replace(self.layer, further=())).source(recipe)
            raise TicketError(f"{self.layer.name}: the seed gives other weights than the ticket records")
        return LayerSource(self.layer, self.p_l, edges, values)

    def draw(self, recipe: Recipe, edges: np.ndarray) -> np.ndarray:
        """The weights that the seed gives the `edges`, redraws included."""
        values = draw_values(recipe, self.layer, self.p_l, edges)
        if self.redraws is None:
            return values
        return draw_again(recipe, LayerSource(self.layer, self.p_l, edges, values), self.redraws)

    def effective(self, recipe: Recipe, method: Method) -> LayerSource:
        """The source with the weights that the ticket has at its edges: the source's own, or what the method makes of them."""
        source = self.source(recipe)
        values = method.values(torch.from_numpy(source.values), torch.from_numpy(self.selected))
        return replace(source, values=values.numpy())

    def weight(self, recipe: Recipe, method: Method) -> torch.Tensor:
        """W_eff, 0 at all entries but the kept edges, as a float32 tensor of the layer's shape."""
        source = self.effective(recipe, method)
        dense = np.zeros(self.layer.entries, dtype=np.float32)
        dense[source.edges[self.selected]] = source.values[self.selected]
        return torch.from_numpy(dense).view(self.layer.shape)

    def pack(self, embed_weights: bool, recipe: Recipe, compress: bool) -> tuple[dict[str, Any], Tensors]:
        """The layer's record and tensors as they stand in a file."""
        name, bits = self.layer.name, masks.pack(self.selected)
        coded = masks.compress(self.selected) if compress else None
        record = {"name": name, "shape": list(self.layer.shape), "p_l": self.p_l, "edges": len(self.selected),
                  "kept": self.kept, "coded": coded is not None, "edges_hash": self.edges_hash,
                  "weights_hash": self.weights_hash, "mask_hash": hash_array(bits)}
        tensors = {f"mask/{name}": bits} if coded is None else {f"gaps/{name}": coded}
        if self.edges is not None:
            tensors[f"edges/{name}"] = masks.pack(masks.at(self.edges, self.layer.entries))
        if embed_weights or recipe.weights == GIVEN:
            tensors[f"weights/{name}"] = self.source(recipe).values
        if self.redraws is not None:
            tensors[f"redraws/{name}"] = masks.compress_counts(self.redraws[self.selected])
        return record, {key: torch.from_numpy(array) for key, array in tensors.items()}

    @classmethod
    def unpack(cls, value: Any, tensors: Tensors, recipe: Recipe, before: Layer | None) -> TicketLayer:
        """The layer of a file's record, after the one `before` it, its tensors taken out of `tensors`; a ValueError if they
        are not what was saved."""
        layer, record = contents.layer(value, recipe, before)
        try:
            selected = _selected(record, tensors)
        except ValueError as error:
            raise ValueError(f"the mask of {layer.name} is not the one that was saved: {error}") from None
        values = _values(layer.name, record, tensors)
        if values is None and recipe.weights == GIVEN:
            raise ValueError(f"the weights of {layer.name} are 'given', and the file does not hold them")
        redraws = _redraws(layer.name, tensors, selected)
        edges = None if recipe.draws_edges else _edges(layer, record, tensors)
        return cls(layer, record["p_l"], selected, record["edges_hash"], record["weights_hash"], values, redraws, edges)


def _selected(record: dict[str, Any], tensors: Tensors) -> np.ndarray:
    """The mask [edges], as many ones in it as the record says."""
    room, edges, kept = "gaps" if record["coded"] else "mask", record["edges"], record["kept"]
    stored = tensors.pop(f"{room}/{record['name']}", None)
    if stored is None or stored.dtype is not torch.uint8 or stored.dim() != 1:
        raise ValueError(f"the file has no {room}/{record['name']} of dtype uint8")
    selected = masks.decompress(stored.numpy(), edges, kept) if record["coded"] else masks.unpack(stored.numpy(), edges)
    if np.count_nonzero(selected) != kept or hash_array(masks.pack(selected)) != record["mask_hash"]:
        raise ValueError("its count or its hash is another")
    return selected


def _edges(layer: Layer, record: dict[str, Any], tensors: Tensors) -> np.ndarray:
    """The flat indices of the edges that the file holds."""
    stored = tensors.pop(f"edges/{layer.name}", None)
    if stored is None or stored.dtype is not torch.uint8 or stored.dim() != 1:
        raise ValueError(f"the file has no edges/{layer.name} of dtype uint8, and no seed draws them")
    edges = np.flatnonzero(masks.unpack(stored.numpy(), layer.entries))
    if len(edges) != record["edges"] or hash_array(edges) != record["edges_hash"]:
        raise ValueError(f"edges/{layer.name} are not the edges that were saved")
    return edges


def _redraws(name: str, tensors: Tensors, selected: np.ndarray) -> np.ndarray | None:
    """Which was each edge's last redraw [edges], None if the file holds none."""
    stored = tensors.pop(f"redraws/{name}", None)
    if stored is None:
        return None
    if stored.dtype is not torch.uint8 or stored.dim() != 1:
        raise ValueError(f"redraws/{name} is not coded as uint8")
    redraws = np.zeros(len(selected), dtype=np.int32)
    redraws[selected] = masks.decompress_counts(stored.numpy(), int(np.count_nonzero(selected)))
    return redraws


def _values(name: str, record: dict[str, Any], tensors: Tensors) -> np.ndarray | None:
    """The embedded weights of the edges [edges], None if the file holds none."""
    stored = tensors.pop(f"weights/{name}", None)
    if stored is None:
        return None
    if stored.dtype is not torch.float32 or stored.shape != (record["edges"],):
        raise ValueError(f"weights/{name} are not {record['edges']} float32 values")
    if hash_array(stored.numpy()) != record["weights_hash"]:
        raise ValueError(f"weights/{name} are not the weights that were saved")
    return stored.numpy()

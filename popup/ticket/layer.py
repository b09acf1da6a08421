"""One layer of a ticket: each edge's code, and how to get the edges and their weights back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from popup.errors import UsageError
from popup.source import blocks
from popup.source import edges as edge_places
from popup.source.books import Book, Drawn
from popup.source.layer_source import LayerSource, draw_edges, draw_values
from popup.source.layers import Layer
from popup.source.recipe import GIVEN, Recipe
from popup.ticket import coding, contents, packing
from popup.ticket.file import TicketError
from popup.ticket.hashes import RunningHash, hash_array
from popup.ticket.sealed import Tensors


@dataclass(frozen=True, eq=False)
class TicketLayer:
    """One layer: its p_l, a code an edge (ascending edge index), and the hashes of what the seed gives.

    `edges`: their flat indices, ascending, int64, where no seed draws them (a mask that is given or computed).
    `values`: the weights that the edges have where they are known without the seed (weights 'given', or embedded).
    `k`: the fraction of them that is kept, where it is not the recipe's (its ticket_density is a rule).
    """

    spec: Layer
    p_l: float
    codes: np.ndarray  # [edges]: bool, or where the book has more than two codes uint8 or int32; 0: dropped
    edges_hash: str
    weights_hash: str
    values: np.ndarray | None = None   # [edges], float32
    edges: np.ndarray | None = None    # [edges], int64
    k: float | None = None

    def own(self, recipe: Recipe) -> Recipe:
        """The recipe of this layer by itself, out of the ticket's."""
        return recipe if self.k is None else recipe.with_k(self.k)

    @property
    def selected(self) -> np.ndarray:
        """S_P over the edges, bool [edges]."""
        return self.codes != 0

    @property
    def kept(self) -> int:
        """How many edges are kept."""
        return int(np.count_nonzero(self.codes))

    def drawn(self, recipe: Recipe, book: Book) -> Drawn:
        """Draw the layer's source again, and refuse it if it is not the one the ticket was found in."""
        recipe = self.own(recipe)
        edges = draw_edges(recipe, self.spec, self.p_l) if self.edges is None else self.edges
        if len(edges) != len(self.codes) or hash_array(edges) != self.edges_hash:
            raise TicketError(f"{self.spec.name}: the seed gives other edges than the ticket records")
        try:
            found = self._from_seed(recipe, edges) if self.values is None else self._stored(recipe, edges, self.values)
        except UsageError as error:
            raise TicketError(f"the recipe draws nothing: {error}") from None
        if hash_array(own_weights(found, book, self.codes)) != self.weights_hash:
            if self.spec.further:  # a file of before these counted: the whole bias has the first's deviation
                return replace(self, spec=replace(self.spec, further=())).drawn(recipe, book)
            raise TicketError(f"{self.spec.name}: the seed gives other weights than the ticket records")
        return found

    def _stored(self, recipe: Recipe, edges: np.ndarray, values: np.ndarray) -> Drawn:
        return Drawn(recipe, LayerSource(self.spec, self.p_l, edges, values), stored=True)

    def _from_seed(self, recipe: Recipe, edges: np.ndarray) -> Drawn:
        return Drawn(recipe, LayerSource(self.spec, self.p_l, edges, draw_values(recipe, self.spec, self.p_l, edges)))

    def is_the_seeds(self, recipe: Recipe, book: Book) -> bool:
        """Whether the seed gives the very weights that the ticket has, embedded or not."""
        embedded = self.values is not None and recipe.weights != GIVEN
        try:
            for layer in (self, replace(self, values=None)) if embedded else (self,):
                layer.drawn(recipe, book)
        except TicketError:
            return False
        return True

    def effective(self, recipe: Recipe, book: Book) -> torch.Tensor:
        """The effective weights of the edges, float32 [edges], 0 where one is dropped."""
        return book.values(self.drawn(recipe, book), torch.from_numpy(self.codes))

    def kept_weights(self, recipe: Recipe, book: Book) -> tuple[np.ndarray, torch.Tensor]:
        """The kept edges: their flat indices, ascending, int64, and their effective weights, float32 [kept]."""
        plain = book.codes == 2 and book.one_by_one and book.keeps_weights and self.values is None and self.edges is None
        if plain and self.spec.entries > blocks.BLOCK and blocks.drawn_by_block(recipe, self.spec):
            return self._kept_by_block(recipe, book)
        found = self.drawn(recipe, book)
        values = book.values(found, torch.from_numpy(self.codes))
        return found.source.edges[self.selected], values[torch.from_numpy(self.selected)]

    def _kept_by_block(self, recipe: Recipe, book: Book) -> tuple[np.ndarray, torch.Tensor]:
        """The same of a layer that is drawn a block at a time, so that its edges are never all in memory."""
        hashes, kept, passed, recipe = (RunningHash(), RunningHash()), [], 0, self.own(recipe)
        for _, block in blocks.draw_blocks(recipe, self.spec, self.p_l):
            codes = self.codes[passed:passed + len(block.edges)]
            passed += len(block.edges)
            if len(codes) < len(block.edges):
                break
            values = book.values(Drawn(recipe, block), torch.from_numpy(codes))
            kept.append((block.edges[codes], values[torch.from_numpy(codes)]))
            for running, array in zip(hashes, (block.edges, block.values), strict=True):
                running.add(array)
        if passed != len(self.codes) or hashes[0].hex() != self.edges_hash:
            raise TicketError(f"{self.spec.name}: the seed gives other edges than the ticket records")
        if hashes[1].hex() != self.weights_hash:
            raise TicketError(f"{self.spec.name}: the seed gives other weights than the ticket records")
        return np.concatenate([places for places, _ in kept]), torch.cat([values for _, values in kept])

    def weight(self, recipe: Recipe, book: Book) -> torch.Tensor:
        """W_eff, 0 at all entries but the kept edges, as a float32 tensor of the layer's shape."""
        found = self.drawn(recipe, book)
        values = book.values(found, torch.from_numpy(self.codes))
        return edge_places.expand(values, torch.from_numpy(found.source.edges), self.spec.entries).view(self.spec.shape)

    def mask(self, recipe: Recipe) -> torch.Tensor:
        """S_P, bool of the layer's shape."""
        edges = draw_edges(recipe, self.spec, self.p_l) if self.edges is None else self.edges
        mask = torch.zeros(self.spec.entries, dtype=torch.bool, device="cpu")
        mask[torch.from_numpy(edges[self.selected])] = True
        return mask.view(self.spec.shape)

    def pack(self, embed_weights: bool, recipe: Recipe, book: Book, compress: bool) -> tuple[dict[str, Any], Tensors]:
        """The layer's record and tensors as they stand in a file."""
        name, selected = self.spec.name, self.selected
        arrays = packing.pack(self.codes, book, compress)
        record = {"name": name, "shape": list(self.spec.shape), "p_l": self.p_l, "edges": len(selected),
                  "kept": self.kept, "coded": "gaps" in arrays, "edges_hash": self.edges_hash,
                  "weights_hash": self.weights_hash, "mask_hash": hash_array(coding.pack(selected))} | contents.of_spec(self.spec)
        record |= {} if self.k is None else {"k": self.k}
        tensors = {f"{form}/{name}": array for form, array in arrays.items()}
        if self.edges is not None:
            tensors[f"edges/{name}"] = coding.pack(coding.at(self.edges, self.spec.entries))
        if embed_weights or recipe.weights == GIVEN:
            tensors[f"weights/{name}"] = own_weights(self.drawn(recipe, book), book, self.codes)
        return record, {key: torch.from_numpy(array) for key, array in tensors.items()}

    @classmethod
    def unpack(cls, value: Any, tensors: Tensors, recipe: Recipe, book: Book, before: Layer | None) -> TicketLayer:
        """The layer of a file's record, after the one `before` it, its tensors taken out of `tensors`; a ValueError if they
        are not what was saved."""
        layer, record = contents.layer(value, recipe, before)
        try:
            codes = packing.unpack(record, tensors, book)
        except ValueError as error:
            raise ValueError(f"the mask of {layer.name} is not the one that was saved: {error}") from None
        values = _values(layer.name, record, tensors)
        if values is None and recipe.weights == GIVEN:
            raise ValueError(f"the weights of {layer.name} are 'given', and the file does not hold them")
        edges = None if recipe.draws_edges else _edges(layer, record, tensors)
        return cls(layer, record["p_l"], codes, record["edges_hash"], record["weights_hash"], values, edges, record.get("k"))


def own_weights(drawn: Drawn, book: Book, codes: np.ndarray) -> np.ndarray:
    """The weight that a file records for each edge, float32 [edges]: its first, or of a kept edge that of its last redraw."""
    if book.keeps_weights or drawn.stored:
        return drawn.source.values
    return drawn.at(torch.from_numpy(np.maximum(codes, 1) - 1)).numpy()


def _edges(layer: Layer, record: dict[str, Any], tensors: Tensors) -> np.ndarray:
    """The flat indices of the edges that the file holds, which no seed draws."""
    edges = np.flatnonzero(coding.unpack(packing.stored(f"edges/{layer.name}", tensors), layer.entries))
    if len(edges) != record["edges"] or hash_array(edges) != record["edges_hash"]:
        raise ValueError(f"edges/{layer.name} are not the edges that were saved")
    return edges


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

"""What an attached network is made of: each layer's counts, its share of all weights, and the multiply-adds of a pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload

from popup.search.dispatch import DispatchMode
from popup.search.network import densities, search_of, unwrapped
from popup.search.plain import merge
from popup.search.provenance import storage_of, tensors_in
from popup.search.tables import html_table, text_table
from popup.source.frozen import left_out
from popup.source.layers import locate


@dataclass(frozen=True)
class LayerSummary:
    """One layer: `share` of the network's weights; the multiply-adds of a pass of the dense layer and of the kept edges alone,
    None where nothing is known of its product."""

    name: str
    kind: str
    shape: tuple[int, ...]
    entries: int
    share: float
    edges: int
    kept: int
    dense_multiply_adds: int | None
    multiply_adds: int | None


@dataclass(frozen=True)
class Summary:
    """The layers of a network, and how many `weights` it has, vectors such as biases apart, of which `dense` are in no layer."""

    layers: tuple[LayerSummary, ...]
    weights: int
    dense: int

    HEADER = ("layer", "kind", "shape", "entries", "share", "edges", "kept", "multiply-adds", "dense")

    def _rows(self) -> list[list[str]]:
        rows = [[layer.name, layer.kind, "x".join(map(str, layer.shape)), f"{layer.entries:,}", f"{layer.share:.1%}",
                 f"{layer.edges:,}", f"{layer.kept:,}", _number(layer.multiply_adds), _number(layer.dense_multiply_adds)]
                for layer in self.layers]
        sums = [sum(getattr(layer, name) for layer in self.layers) for name in ("entries", "edges", "kept")]
        counts = [sum(getattr(layer, name) or 0 for layer in self.layers) or None
                  for name in ("multiply_adds", "dense_multiply_adds")]
        return [*rows, ["all", "", "", f"{sums[0]:,}", f"{sums[0] / self.weights:.1%}", f"{sums[1]:,}", f"{sums[2]:,}",
                        *map(_number, counts)]]

    def _caption(self) -> str:
        return f"{self.dense:,} of {self.weights:,} weights ({self.dense / self.weights:.1%}) are in no layer and stay dense"

    def __repr__(self) -> str:
        return f"{text_table(self.HEADER, self._rows())}\n{self._caption()}"

    def _repr_html_(self) -> str:
        return html_table(self.HEADER, self._rows(), self._caption())


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def summary(net: nn.Module, *inputs: object, **named: object) -> Summary:
    """What the attached network `net` is made of. With the inputs of a pass, as net(...) takes them, also its multiply-adds, in
    evaluation mode: those of a dense layer, and as many times its density, which is what the kept edges alone would need."""
    search, net = search_of(net), unwrapped(net)
    specs, rows = [layer.spec for layer in search.layers], densities(net)
    dense = sum(left_out(net, specs).values())
    weights = dense + sum(spec.entries for spec in specs)
    plain = merge(net) if inputs or named else None
    counted = {} if plain is None else multiply_adds(plain, [spec.name for spec in specs], lambda: plain(*inputs, **named))
    found = []
    for spec, row in zip(specs, rows, strict=True):
        whole = counted.get(spec.name)
        kept = None if whole is None else round(whole * row.kept / spec.entries)
        kind = type(locate(net, spec.name)[0]).__name__.removeprefix("Parametrized")
        found.append(LayerSummary(spec.name, kind, spec.shape, spec.entries, spec.entries / weights, row.edges, row.kept, whole,
                                  kept))
    return Summary(tuple(found), weights, dense)


def multiply_adds(net: nn.Module, names: list[str], forward: Callable[[], object]) -> Mapping[str, int]:
    """The multiply-adds of the products that a pass of the plain network `net` makes with the weights `names`, by name."""
    owners = {storage_of(getattr(*locate(net, name))): name for name in names}
    counter, fast = _Counter(owners), torch.backends.mha.get_fastpath_enabled()
    net.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, whose parts nobody sees
    try:
        with torch.no_grad(), counter:
            forward()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.found


class _Counter(DispatchMode):
    """Adds up what torch's own formulas say of each operation that a weight takes part in: a multiply-add is two of theirs."""

    def __init__(self, owners: Mapping[int | None, str]) -> None:
        from torch.utils.flop_counter import flop_registry  # a third of a second of import that no search needs

        super().__init__()
        self.owners, self.found, self.formulas = owners, dict[str, int](), flop_registry

    def __torch_dispatch__(self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> object:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self.formulas.get(func._overloadpacket)
        names = {self.owners[place] for tensor in tensors_in((args, kwargs)) if (place := storage_of(tensor)) in self.owners}
        if formula is not None:
            for name in names:
                self.found[name] = self.found.get(name, 0) + formula(*args, **kwargs, out_val=out) // 2
        return out

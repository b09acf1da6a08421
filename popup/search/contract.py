"""What every method owes the laws, whatever it is called: that what it trains by is a network which its tickets can hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from popup.search.gate import Gate
from popup.search.layer_state import LayerState
from popup.search.search import Search

FORMER = ("values", "scale", "restored", "memory", "effective")  # of what methods were asked before they had code books


def unasked(method: object) -> list[str]:
    """What a method defines that methods are asked no more, so that it would be another method than it says."""
    return [name for name in FORMER if callable(getattr(method, name, None))]


def gate_faults(search: Search, gates: Sequence[Gate]) -> dict[str, str]:
    """What is wrong with the `gates` of a training pass, in words by layer name; nothing if they keep the contract:

    each edge has a code of the method's book; factors lie between 0 and `most`, so that no sign is turned; the ticket has a code
    for each selected edge and for no other; and of a method that says it trains the ticket, once k is the ticket's, the gates are
    the ticket's codes with factor 1.
    """
    found = [_kinds(layer, gate) for layer, gate in zip(search.layers, gates, strict=True)]
    ticket = search.codes()
    if not any(found):
        found = [_codes(*each) for each in zip(search.layers, ticket, search.select(), strict=True)]
    if not any(found) and search.trains_the_ticket():
        found = [_unlike(gate, codes) for gate, codes in zip(gates, ticket, strict=True)]
    return {layer.spec.name: words for layer, words in zip(search.layers, found, strict=True) if words}


def foreign_codes(layer: LayerState, codes: torch.Tensor) -> str:
    """What is wrong with the `codes` of a layer's edges, in words, if they are none of its book; else nothing."""
    if codes.shape == (layer.count,) and layer.book.holds(codes):
        return ""
    return f"its codes are not those of the book {layer.book.name!r}, which has {layer.book.codes}"


def _codes(layer: LayerState, codes: torch.Tensor, selected: torch.Tensor) -> str:
    if words := foreign_codes(layer, codes):
        return words
    others = int(((codes != 0) != selected).sum())
    return f"the ticket has codes at other edges than those selected: {others} differ" if others else ""


def _kinds(layer: LayerState, gate: Gate) -> str:
    if not isinstance(gate, Gate):
        return f"its gate is a {type(gate).__name__}, not a popup.search.gate.Gate(codes, factor, most)"
    if words := foreign_codes(layer, gate.codes):
        return words
    factor, most = _tensor(gate.factor), _tensor(gate.most)
    if not bool(((factor >= 0) & (factor <= most) & most.isfinite()).all()):
        return (f"its factors go from {float(factor.min()):g} to {float(factor.max()):g}, and no ticket holds what is not within "
                f"0 and {float(most):g}: let the method give codes of a book that has these weights")
    return ""


def _unlike(gate: Gate, codes: torch.Tensor) -> str:
    others = int((gate.codes != codes).sum())
    if others:
        return (f"{others} of its {len(codes)} edges are trained with other codes than the ticket has: say trains_ticket = False "
                "if that is meant")
    factor = _tensor(gate.factor)
    return "" if bool((factor == 1).all()) else (f"its weights are trained {float(factor.max()):g} times as large as the ticket "
                                                 "has them: say trains_ticket = False if that is meant")


def _tensor(number: float | torch.Tensor) -> torch.Tensor:
    """A tensor where it is, or a number on the CPU."""
    return number if isinstance(number, torch.Tensor) else torch.tensor(number, device="cpu")

"""The effective weights of layers as a function of their scores, with the straight-through gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from popup.errors import UsageError
from popup.search.cached_weight import versions
from popup.search.edge_group import EdgeGroup
from popup.search.gate import Gate
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.passes import Pass
from popup.source import edges


@dataclass(frozen=True, eq=False)
class Use:
    """What a pass makes of a layer, or of a group: weights by one `gate` over the edges of all its layers. `passing`: whether it
    is a pass of the whole network. `trains_ticket`: whether the method trains by the ticket, asked in the backward pass. `begun`:
    the pass, which is there as long as its graph, for what is computed anew."""

    of: LayerState | EdgeGroup
    gate: Gate
    method: Method
    passing: bool
    trains_ticket: Callable[[], bool]
    begun: Pass | None

    def refuse_part(self) -> None:
        """A UsageError if a part of the network was trained by itself, and so by the ticket, where the method trains by other
        gates."""
        if not self.passing and not self.trains_ticket():
            raise UsageError(f"{self.of.layers[0].spec.name} is trained by a forward pass of a part of the network, which used "
                             f"the ticket; method {self.method.settings.method} trains by other gates now: call the network that "
                             "was attached")


class SelectEdges(torch.autograd.Function):
    """Forward: what the gate's codes mean at the edges, times its factor, 0 elsewhere. Backward: ds = (dL/dW_eff * W) * slope(s)
    on all edges."""

    @staticmethod
    def forward(ctx: Any, use: Use, places: Sequence[torch.Tensor | None], weights: Sequence[torch.Tensor],
                *scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.use = use
        if isinstance(use.of, EdgeGroup):
            ctx.save_for_backward(*scores, *places, *use.gate.tensors())
        else:  # a part that is computed anew in the backward pass may save no more than it did in the forward pass: its products'
            ctx.held = [*scores, *places, *use.gate.tensors()]
            ctx.versions = _counts(ctx.held)
        return tuple(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        use, number = ctx.use, len(gradients)
        saved: Sequence[Any] = ctx.saved_tensors if isinstance(use.of, EdgeGroup) else _unwritten(ctx, use)
        use.refuse_part()
        scores = saved[0] if number == 1 else torch.cat(list(saved[:number]))
        found = scores.new_empty(use.of.count)  # [edges], float32
        parts = found.split(use.of.sizes) if number > 1 else [found]
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                use.of.follow(place, gradient)
                edges.restrict(gradient, saved[number + place], parts[place])
        found = use.method.score_gradient(use.of.unit, scores, use.gate, found)
        parts = found.split(use.of.sizes) if number > 1 else [found]
        return None, None, None, *(part if wanted and gradient is not None else None
                                   for part, gradient, wanted in zip(parts, gradients, ctx.needs_input_grad[3:], strict=True))


def _unwritten(ctx: Any, use: Use) -> Sequence[Any]:
    """What is held for the backward pass; a UsageError if somebody has written to it since, as torch sees of what it holds."""
    if _counts(ctx.held) != ctx.versions:
        raise UsageError(f"{use.of.layers[0].spec.name}: its scores, or what its method remembers, have been modified by an "
                         "inplace operation between the forward and the backward pass: step the optimiser after the "
                         "backward pass")
    held: Sequence[Any] = ctx.held
    return held


def _counts(held: Sequence[torch.Tensor | None]) -> tuple[int, ...]:
    return versions(*(tensor for tensor in held if tensor is not None))


def weigh(group: EdgeGroup, use: Use, scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The effective weights of a group's layers in a training pass [each layer's shape], of the `scores` of each. They are kept
    from pass to pass, and only changed edges are written."""
    with group.lock:  # until it is known what uses them, another thread's pass might write to them
        positions, places = group.positions()
        weights = group.weights(use.gate, positions, group.layers[0].dtype_now())
        found = SelectEdges.apply(use, places, weights, *scores)
        group.cached_weight.use(found[0].grad_fn)
    return found

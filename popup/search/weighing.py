"""The effective weights of layers as a function of their scores, with the straight-through gradient."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from popup.errors import UsageError
from popup.search.cached_weight import versions
from popup.search.edge_group import EdgeGroup
from popup.search.gate import Gate
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.passes import Pass
from popup.source import edges

STRAIGHT = ("has scores, whose gradient goes straight through the selection and has no derivative of its own: differentiate it "
            "no further (gradients of inputs can be)")


@dataclass(frozen=True, eq=False)
class Use:
    """What a pass makes of a layer, or of a group: weights by one `gate` over the edges of all its layers. `passing`: whether it
    is a pass of the whole network. `trains_ticket`: whether the method trains by this, or would by the ticket. `begun`: the pass,
    which is there as long as its graph, for what is computed anew."""

    of: LayerState | EdgeGroup
    gate: Gate
    method: Method
    passing: bool
    trains_ticket: bool
    begun: Pass | None

    def check_training(self) -> None:
        """Of scores that get a gradient of the ticket, where the method trains by other gates: a UsageError if a part of the
        network was called by itself, a warning if it was in evaluation mode (whose gradients may be wanted for inputs)."""
        if self.trains_ticket or (self.begun is not None and self.begun.learning):
            return
        method = self.method.settings.method
        if not self.passing:
            raise UsageError(f"{self.of.layers[0].spec.name} is trained by a forward pass of a part of the network, which used "
                             f"the ticket; method {method} trains by other gates now: call the network that was attached")
        warnings.warn(f"scores get the gradient of a pass in evaluation mode, which used the ticket; method {method} trains by "
                      "other gates now: call net.train() before a pass to train by, and eval() on norms and dropout alone",
                      stacklevel=2)


class Once(torch.autograd.Function):
    """Forward: `found` as it is, which was made of the tensors `of`. Backward: refused, in `words`."""

    @staticmethod
    def forward(ctx: Any, words: str, found: torch.Tensor, *of: torch.Tensor) -> torch.Tensor:
        ctx.words = words
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> NoReturn:
        raise UsageError(ctx.words)


class SelectEdges(torch.autograd.Function):
    """Forward: what the gate's codes mean at the edges, times its factor, 0 elsewhere. Backward: ds = (dL/dW_eff * W) * slope(s)
    on all edges."""

    @staticmethod
    def forward(ctx: Any, use: Use, places: Sequence[torch.Tensor | None], weights: Sequence[torch.Tensor],
                *scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.use, ctx.places = use, places
        ctx.held = [*scores, *use.gate.tensors()]  # not saved: losses that share nothing else may each have a backward pass
        ctx.versions = versions(*ctx.held)
        if isinstance(use.of, EdgeGroup):  # what is made anew in a backward pass may save no more than in the forward pass
            ctx.save_for_backward(scores[0].new_empty(0))  # by which it is known whether the graph is there to be used again
        return tuple(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        use, saved = ctx.use, _unwritten(ctx)
        use.check_training()
        with torch.no_grad():
            found = _gradients(ctx, gradients, saved)
        if torch.is_grad_enabled():  # somebody means to differentiate once more
            words = f"{use.of.layers[0].spec.name} {STRAIGHT}"
            found = [None if part is None else Once.apply(words, part, *_there(gradients)) for part in found]
        return None, None, None, *found


def _gradients(ctx: Any, gradients: Sequence[torch.Tensor | None], saved: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Of each layer's scores, of those of its weight."""
    use, number = ctx.use, len(gradients)
    scores = saved[0] if number == 1 else torch.cat(list(saved[:number]))
    places, ctx.places = ctx.places or _places(use.of), None  # they may be large, and are seldom asked for once more
    found = scores.new_empty(use.of.count)  # [edges], float32
    parts = found.split(use.of.sizes) if number > 1 else [found]
    for place, gradient in enumerate(gradients):
        if gradient is not None:
            use.of.follow(place, gradient)
            edges.restrict(gradient, places[place], parts[place])
    found = use.method.score_gradient(use.of.unit, scores, use.gate, found)
    parts = found.split(use.of.sizes) if number > 1 else [found]
    return [part if wanted and gradient is not None else None
            for part, gradient, wanted in zip(parts, gradients, ctx.needs_input_grad[3:], strict=True)]


def _there(gradients: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    return [gradient for gradient in gradients if gradient is not None]


def _places(of: LayerState | EdgeGroup) -> Sequence[torch.Tensor | None]:
    """Each layer's edges in its own flat weight, once more."""
    if not isinstance(of, EdgeGroup):
        return [of.places()]
    with of.lock:
        return of.positions()[1]


def _unwritten(ctx: Any) -> Sequence[Any]:
    """What is held for the backward pass; a UsageError if somebody has written to it since, as torch sees of what it holds."""
    if versions(*ctx.held) != ctx.versions:
        raise UsageError(f"{ctx.use.of.layers[0].spec.name}: its scores, or what its method remembers, have been modified by an "
                         "inplace operation between the forward and the backward pass: step the optimiser after the "
                         "backward pass")
    held: Sequence[Any] = ctx.held
    return held


def weigh(group: EdgeGroup, use: Use, scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The effective weights of a group's layers in a training pass [each layer's shape], of the `scores` of each. They are kept
    from pass to pass, and only changed edges are written."""
    with group.lock:  # until it is known what uses them, another thread's pass might write to them
        positions, places = group.positions()
        weights = group.weights(use.gate, positions, group.layers[0].dtype_now())
        found = SelectEdges.apply(use, places, weights, *scores)
        group.cached_weight.use(found)
    return found

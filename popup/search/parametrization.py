"""The effective weight of one layer as a function of its scores, with the straight-through gradient."""

from __future__ import annotations

import json

import torch

from popup.errors import UsageError
from popup.search.gate import Gate
from popup.search.layer_state import LayerState
from popup.search.search import Search
from popup.source import edges
from popup.source.recipe import LayerSource


class SelectEdges(torch.autograd.Function):
    """Forward: what the gate's codes mean at the edges, times its factor, 0 elsewhere. Backward: ds = (dL/dW_eff * W) * slope(s)
    on all edges."""

    @staticmethod
    def forward(ctx, scores: torch.Tensor, gate: Gate, layer: EdgeWeight, dtype: torch.dtype) -> torch.Tensor:
        places = layer.places()
        ctx.save_for_backward(scores, places, *gate.tensors())
        weight = layer.weight(gate, places, dtype) if layer.search.learning else layer.anew(gate, places, dtype)
        ctx.layer, ctx.gate, ctx.passing = layer, gate, layer.search.passing
        return weight

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        scores, places, *_ = ctx.saved_tensors  # which sees that nobody has written to what the gate holds
        layer, method = ctx.layer, ctx.layer.search.method
        if not ctx.passing and not layer.search.trains_the_ticket():
            raise UsageError(f"{layer.spec.name} is trained by a forward pass of a part of the network, which used the ticket; "
                             f"method {layer.search.settings.method} trains by other gates now: call the network that was "
                             "attached")
        layer.cached_weight.follow(gradient)
        on_edges = edges.restrict(gradient, places)  # [edges]
        owned = on_edges.to(torch.float32, copy=places is None)  # the gradient itself is autograd's, not ours to write to
        owned.mul_(method.weights(layer)).mul_(method.slope(layer, scores, ctx.gate))
        return owned, None, None, None


class EdgeWeight(LayerState):
    """A parametrization (torch.nn.utils.parametrize): scores [edges] -> weight [the layer's shape]. `order`: the names of its
    module's parameters."""

    def __init__(self, search: Search, source: LayerSource, weight: torch.Tensor, order: tuple[str, ...]) -> None:
        super().__init__(search.recipe, source, search.method.book, weight)
        self.search, self.order = search, order
        self.compared = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if not self.compared:
            # DistributedDataParallel sends rank 0's buffers to all
            self.register_buffer("mark", self._mark(weight.device), persistent=False)

    def begin(self) -> None:
        """A pass of the network begins."""
        if not self.compared and self.mark._version:
            self._compare_with_first_rank()

    def _mark(self, device: torch.device) -> torch.Tensor:
        """The fingerprint as a tensor [32], float32, which an average of equal ones leaves as it is."""
        return torch.tensor(list(bytes.fromhex(self.fingerprint())), dtype=torch.float32, device=device)

    def _compare_with_first_rank(self) -> None:
        """A UsageError if the mark that rank 0 has sent is of another source; else it has done its work."""
        if not torch.equal(self.mark.round().float(), self._mark(self.mark.device)):
            raise UsageError(f"{self.spec.name} has another source on this rank than on rank 0: attach with the same seed, and "
                             "the same weights and masks where they are given, on every rank")
        self.compared = True  # the buffer stays: DistributedDataParallel fails where those that it has counted are gone

    def get_extra_state(self) -> torch.Tensor:
        """What a state_dict holds beside scores and memory, so that `load_state_dict` goes on with the search: which source
        they belong to and how far it was. JSON as uint8, since many programs take a state_dict's values for tensors."""
        state = {"source": self.fingerprint(), "steps": self.search.steps, "progress": self.search.progress}
        return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take what `get_extra_state` gave; a UsageError if it is of another source."""
        found = self.check_state(state)
        self.search.steps, self.search.progress = found["steps"], found["progress"]

    @torch._disable_dynamo  # torch.compiler.disable without loading the compiler on import, as torch.optim has it
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        weight = SelectEdges.apply(scores, self.search.gate(self), self, self.dtype_now())
        if torch.is_grad_enabled():
            self.search.asked.add(self.spec.name)
            if self.search.learning:
                self.cached_weight.use(weight.grad_fn)
        return weight

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What torch asks when somebody assigns to the attribute; and when it registers this, which it leaves at that."""
        if not any(layer is self for layer in self.search.layers):
            raise NotImplementedError
        raise UsageError(f"{self.spec.name} is attached, and no weight changes: assign to it before the network is attached")

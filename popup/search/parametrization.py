"""The effective weight W * S_P of one layer as a function of its scores, with the straight-through gradient."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.search.kept import KeptWeight
from popup.source import edges
from popup.source.layers import Layer
from popup.source.recipe import LayerSource

if TYPE_CHECKING:
    from popup.search.network import Search


MEMORY = "memory_"  # what the names of the buffers begin with that hold what a method remembers


class SelectEdges(torch.autograd.Function):
    """Forward: W * gate at the edges, 0 elsewhere. Backward: ds = (dL/dW_eff * W) * slope(s) on all edges."""

    @staticmethod
    def forward(ctx, scores: torch.Tensor, gate: torch.Tensor, layer: EdgeWeight, dtype: torch.dtype) -> torch.Tensor:
        places = layer.places()
        ctx.save_for_backward(scores, places, gate)
        weight = layer.weight(gate, places, dtype)
        ctx.layer, ctx.scale, ctx.passing = layer, layer.search.method.scale(layer), layer.search.passing
        return weight

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        scores, places, gate = ctx.saved_tensors
        layer = ctx.layer
        if not ctx.passing and not layer.search.trains_the_ticket():
            raise UsageError(f"{layer.layer.name} is trained by a forward pass of a part of the network, which used the ticket; "
                             f"method {layer.search.settings.method} trains by other gates now: call the network that was "
                             "attached")
        layer.kept_weight.follow(gradient)
        on_edges = edges.restrict(gradient, places)  # [edges]
        owned = on_edges.to(torch.float32, copy=places is None)  # the gradient itself is autograd's, not ours to write to
        owned.mul_(layer.values).mul_(layer.search.method.slope(layer, scores, gate, ctx.scale))
        return owned, None, None, None


class EdgeWeight(nn.Module):
    """A parametrization (torch.nn.utils.parametrize): scores [edges] -> weight [the layer's shape].

    Holds the frozen source of the layer, its edges and their weights: tensors that move with the network and are left out of
    its state_dict, since the seed draws them again, and of its buffers, since averages of networks
    (torch.optim.swa_utils.AveragedModel) average these. What the method remembers is a buffer.
    """

    SOURCE = ("gaps", "values", "zero")
    gaps: torch.Tensor    # [edges], or empty if every entry is an edge
    values: torch.Tensor  # [edges], float32, frozen

    def __init__(self, search: Search, source: LayerSource, weight: torch.Tensor, order: tuple[str, ...]) -> None:
        super().__init__()
        self.search = search
        self.layer: Layer = source.layer
        self.p_l = source.p_l
        self.order = order  # of its module's parameters
        self.count = len(source.edges)
        self.kept = source.kept(search.recipe.k)
        self.dtype = weight.dtype
        self.memories: tuple[str, ...] = ()
        gaps = edges.encode(source.edges, source.layer.entries)
        self.gaps = gaps.to(weight.device)
        self.values = torch.from_numpy(source.values).to(weight.device)
        self.zero = torch.zeros((), device=weight.device)
        self._fingerprint: str | None = None
        self._first: np.ndarray | None = None       # [edges], the first weights, once there have been others
        self.kept_weight = KeptWeight()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # DistributedDataParallel sends rank 0's buffers to all
            self.register_buffer("mark", self._mark(weight.device), persistent=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> EdgeWeight:
        """What torch moves and converts a module by. From the device "meta" there is no way back: the source is not there."""
        try:
            moved = {name: fn(getattr(self, name)) for name in self.SOURCE}
        except NotImplementedError:
            self.check_data()
            raise
        if not moved["values"].is_meta:
            self.check_data()
        vars(self).update(moved)
        return super()._apply(fn, recurse)

    def check_data(self) -> None:
        """A UsageError if the source is on the device "meta"."""
        if self.values.is_meta:
            raise UsageError(f"{self.layer.name} was attached on (or moved to) the device 'meta', where tensors have no values, "
                             "and so its source is lost: put the network on a device that has data first, and then attach it")

    def remember(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Take what the method remembers of this layer."""
        self.memories = tuple(memory)
        for name, tensor in memory.items():
            self.register_buffer(MEMORY + name, tensor.to(self.values.device))

    def memory(self, name: str) -> torch.Tensor:
        """What the method remembers of this layer under `name`."""
        return getattr(self, MEMORY + name)

    def source(self) -> LayerSource:
        """The layer as it was drawn first."""
        self.check_data()
        drawn = LayerSource(self.layer, self.p_l, self.flat_edges().cpu().numpy(), self.values.cpu().numpy())
        return replace(drawn, values=self._first) if self._first is not None else drawn

    def rewrite(self, values: torch.Tensor) -> None:
        """Give the edges other weights [edges]: for methods that draw anew what is not selected."""
        if self._first is None:
            self._first = self.values.cpu().numpy().copy()
        self.values.copy_(values)
        self.kept_weight.weight = None

    def places(self) -> torch.Tensor | None:
        """The edges' flat indices [edges], int32 or int64; None if every entry is an edge."""
        if self.count == self.layer.entries:
            return None
        held = self.kept_weight.places
        return edges.decode(self.gaps, self.layer.entries) if held is None else held

    def dense(self, selected: torch.Tensor) -> torch.Tensor:
        """The selected edges' values as a new weight of the layer's shape and dtype, 0 elsewhere."""
        kept = self.gated(selected).to(self.dtype)
        return edges.expand(kept, self.places(), self.layer.entries).view(self.layer.shape)

    def weight(self, gate: torch.Tensor, places: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        """W * gate [the layer's shape]. A selection's is kept from step to step: only the edges that have changed are written.

        It is made anew where that could be seen: while a pass that used it waits for its backward pass, in inference mode,
        and after somebody else has written to it (but for a write through `.data` or numpy, which leaves no trace). Only what a
        hook keeps of the weights of a pass without gradients is overwritten by a later pass.
        """
        kept = self.kept_weight
        if not (kept.fits(dtype, self.values) and self._shows(gate, places)):
            weight = edges.expand(self.gated(gate).to(dtype), places, self.layer.entries).view(self.layer.shape)
            if torch.is_inference_mode_enabled():  # what is made there is of no use to a training pass
                return weight
            kept.renew(weight)
            kept.show(gate, self.values)
        return kept.weight.view(self.layer.shape)  # another tensor for each pass, as autograd hangs its graph on it

    def prepare(self, gate: torch.Tensor) -> None:
        """Bring the weight that is kept to what a pass begins with. All layers one after the other take less time
        than each for itself between two convolutions, which leave neither code nor data in the processor's cache."""
        if "mark" in self._buffers and self.mark._version:
            self._compare_with_first_rank()
        kept = self.kept_weight
        if kept.weight is not None and kept.fits(kept.weight.dtype, self.values):
            kept.places = self.places()
            self._shows(gate, kept.places)

    def gated(self, gate: torch.Tensor) -> torch.Tensor:
        """The effective weights of the edges [edges], float32, under a selection (bool) or a gate (float32)."""
        values = self.search.method.values(self.values, gate)
        return torch.where(gate, values, self.zero) if gate.dtype is torch.bool else values * gate

    def _shows(self, gate: torch.Tensor, places: torch.Tensor | None) -> bool:
        """Whether the weight that is kept shows `gate`, or may be written to, differs by little, and so has been made to."""
        kept, last = self.kept_weight, self.kept_weight.shown
        if last is gate:
            return True
        selections = last is not None and gate.dtype is torch.bool and last.dtype is torch.bool
        if kept.in_use() or torch.is_inference_mode_enabled() or not selections or not self.search.method.constant_values:
            return False
        if gate.device.type == "cpu":
            kept.change(gate, places, self.values)
        else:
            kept.rewrite(self.gated(gate), places)
        kept.show(gate, self.values)
        return True

    def fingerprint(self) -> str:
        """SHA-256 of the layer as it was drawn first: its edges' gaps and their weights."""
        if self._fingerprint is None:
            self.check_data()
            values = self.values.cpu().numpy() if self._first is None else self._first
            parts = hashlib.sha256(str(self.layer.shape).encode())
            for array in (self.gaps.cpu().numpy(), values):
                parts.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).view(np.uint8).data)
            self._fingerprint = parts.hexdigest()
        return self._fingerprint

    def _mark(self, device: torch.device) -> torch.Tensor:
        """The fingerprint as a tensor [32], float32, which an average of equal ones leaves as it is."""
        return torch.tensor(list(bytes.fromhex(self.fingerprint())), dtype=torch.float32, device=device)

    def _compare_with_first_rank(self) -> None:
        """A UsageError if the mark that rank 0 has sent is of another source; else it has done its work."""
        if not torch.equal(self.mark.round().float(), self._mark(self.mark.device)):
            raise UsageError(f"{self.layer.name} has another source on this rank than on rank 0: attach with the same seed, and "
                             "the same weights and masks where they are given, on every rank")
        del self.mark

    def get_extra_state(self) -> torch.Tensor:
        """What a state_dict holds beside scores and memory, so that `load_state_dict` goes on with the search: which source
        they belong to and how far it was. JSON as uint8, since many programs take a state_dict's values for tensors."""
        state = {"source": self.fingerprint(), "steps": self.search.steps, "progress": self.search.progress}
        return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take what `get_extra_state` gave; a UsageError if it is of another source."""
        found = self.check_state(state)
        self.search.steps, self.search.progress = found["steps"], found["progress"]

    def check_state(self, state: torch.Tensor) -> dict[str, Any]:
        """What `get_extra_state` gave, read; a UsageError if it is of another source."""
        found = json.loads(bytes(state.tolist()))
        if found["source"] != self.fingerprint():
            raise UsageError(f"the scores of {self.layer.name} are of another source: attach with the seed, densities and "
                             "weights that they were learned with")
        return found

    def dtype_now(self) -> torch.dtype:
        """The weight's own dtype; under autocast the one it would be cast to, so that it is made in it at once. (Float64 never
        is cast.)"""
        if self.dtype is torch.float64:
            return self.dtype
        device = self.values.device.type
        known = device == "cpu" or torch.amp.is_autocast_available(device)  # not for tensors without data, on "meta"
        return torch.get_autocast_dtype(device) if known and torch.is_autocast_enabled(device) else self.dtype

    def flat_edges(self) -> torch.Tensor:
        """The flat indices of the edges, ascending, int64."""
        places = self.places()
        return torch.arange(self.count, device=self.values.device) if places is None else places.long()

    @torch._disable_dynamo  # torch.compiler.disable without loading the compiler on import, as torch.optim has it
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        weight = SelectEdges.apply(scores, self.search.gate(self), self, self.dtype_now())
        if not torch.is_grad_enabled():
            return weight if self.search.in_pass else weight.clone()  # outside of a pass it is somebody's to keep
        self.kept_weight.use(weight.grad_fn)
        return weight

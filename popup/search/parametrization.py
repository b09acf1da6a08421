"""The parametrization that attach puts on a weight: scores in its place, of which the weight is computed when it is asked for."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from popup.errors import UsageError
from popup.search.layer_state import LayerState
from popup.search.passes import in_backward
from popup.search.refusals import refuse_part, refuse_rebuilding, refuse_script
from popup.search.search import Search
from popup.search.weighing import SelectEdges
from popup.source.layer_source import LayerSource
from popup.source.recipe import Recipe

STATE = 256  # letters of a state: more than a fingerprint, the most steps, any float and the name of a method take


class EdgeWeight(LayerState):
    """A parametrization (torch.nn.utils.parametrize): scores [edges] -> weight [the layer's shape]. `orders`: the names of
    the parameters of each module that uses it; `place`: its own among the layers of the network."""

    mark: torch.Tensor  # where ranks are compared

    def __init__(self, search: Search, recipe: Recipe, source: LayerSource, weight: torch.Tensor,
                 orders: tuple[tuple[str, ...], ...]) -> None:
        super().__init__(recipe, source, search.method.book, weight)
        self.search, self.orders, self.place = search, orders, len(search.layers)
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
        they belong to and how far it was. JSON as uint8, since many programs take a state_dict's values for tensors, and always
        as long, since averages (timm's ModelEma) copy the values of one time into those of another."""
        state = {"source": self.fingerprint(), "steps": self.search.steps, "progress": self.search.progress,
                 "method": self.search.settings.method}
        state |= {"ordered": self.search.ordered} if self.search.settings.ordered else {}
        return torch.tensor(list(json.dumps(state).ljust(STATE).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take what `get_extra_state` gave; a UsageError if it is of another source."""
        found = self.check_state(state, self.search.settings.method)
        self.search.steps, self.search.progress = found["steps"], found["progress"]
        self.search.ordered = found.get("ordered", self.search.ordered)

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script asks each module for."""
        refuse_script(self.spec.name)

    @torch._disable_dynamo  # torch.compiler.disable without loading the compiler on import, as torch.optim has it
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        if (ready := self.ready()) is not None:
            return ready
        # selective checkpoints count operations, of which the forward pass, that had its weight ready, did none here
        with _disable_current_modes() if in_backward() else nullcontext():
            use = self.search.use_of(self)
            return SelectEdges.apply(use, [self.places()], [self.anew(use.gate, self.dtype_now())], scores)[0]

    def ready(self) -> torch.Tensor | None:
        """The weight that this pass has ready, if it has one in the dtype that is wanted here."""
        search = self.search
        if torch.is_grad_enabled():
            search.asked.add(self.spec.name)
        if self.sparse and search.layers[self.place] is self:
            return search.sparse_weight(self, self.place)
        if not torch.is_grad_enabled():
            return None
        weight = search.ready(self.place)
        fits = weight is not None and weight.dtype is self.dtype_now() and search.layers[self.place] is self
        return weight if fits else None

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What torch asks when somebody assigns to the attribute; and when it registers this, which it leaves at that."""
        if not any(layer is self for layer in self.search.layers):
            raise NotImplementedError
        raise UsageError(f"{self.spec.name} is attached, and no weight changes: assign to it before the network is attached")


def ask_for_what_is_ready(module: nn.Module, attribute: str) -> None:
    """Let the attribute of an attached `module` be looked up in what a pass has ready, before torch goes its way through the
    calls of two modules, which take longer than a small layer's product. Hooks on these, and further parametrizations, are
    seen."""
    usual: Any = vars(type(module))[attribute]

    def get(module: nn.Module) -> torch.Tensor:
        held: Any = module._modules["parametrizations"]
        found = held._modules[attribute]
        layer = found._modules["0"]
        refuse_part(layer.spec.name)
        if len(found._modules) > 1 or any(part._forward_hooks or part._forward_pre_hooks for part in (found, layer)):
            return usual.fget(module)
        ready = layer.ready()
        return usual.fget(module) if ready is None else ready

    setattr(type(module), attribute, property(torch._disable_dynamo(get), usual.fset))
    refuse_rebuilding(type(module))
    type(module).__module__ = __name__  # torch.fx enters it then, as it enters none of torch.nn's, and asks for the weight

"""What a search has for a layer that is asked for its weight: of the pass that asks, or of the ticket as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf

import torch

from popup.errors import UsageError
from popup.search.edge_group import each_layer
from popup.search.gate import Gate
from popup.search.layer_state import LayerState
from popup.search.methods import METHODS
from popup.search.passes import Pass, Passes, in_backward
from popup.search.schedule import k_at
from popup.search.search_state import SearchState
from popup.search.select import SCOPES
from popup.search.settings import SearchSettings
from popup.search.sparse_weight import SparseWeight
from popup.search.weighing import Use
from popup.source.recipe import Recipe


class Answers(SearchState):
    """A search by the method that its settings name, its passes, and what they use of its layers."""

    def __init__(self, recipe: Recipe, settings: SearchSettings) -> None:
        course = partial(k_at, settings.anneal, settings.k_start, recipe.k, until=settings.anneal_until)
        super().__init__(recipe, course, SCOPES[settings.scope], settings.floor_of)
        self.settings = settings
        self.method = METHODS[settings.method](settings)
        self.passes = Passes()
        self._alone = False  # whether a layer that computes sparsely was called by itself, to learn

    def select(self) -> list[torch.Tensor]:
        """S_P, the ticket as it is now: for each layer one bool an edge."""
        return self.of_layers(self.top([self.method.keys(*unit) for unit in self.units()], self.recipe.k))

    def codes(self) -> list[torch.Tensor]:
        """The ticket as it is now: for each layer a code an edge, of the method's book."""
        return self.of_layers(self._codes())

    def _codes(self) -> list[torch.Tensor]:
        """The same for each of the units."""
        units = self.units()
        selected = self.top([self.method.keys(*unit) for unit in units], self.recipe.k)
        return [self.method.codes(*unit, mask) for unit, mask in zip(units, selected, strict=True)]

    def counts(self) -> list[int]:
        """How many edges of each layer S_P has now. On "meta" scores have no values, and layer by layer it takes none."""
        if self.settings.scope == "layer" and self.layers[0].values.is_meta:
            return [layer.kept for layer in self.layers]
        self.layers[0].check_data()
        return [int(mask.sum()) for mask in self.select()]

    def ticket_gates(self) -> list[Gate]:
        """What a pass uses of each unit that is to compute the ticket."""
        return [Gate(codes) for codes in self._codes()]

    def training_gates(self) -> list[Gate]:
        """What a training pass uses of each layer, as the method has it now."""
        return self._of_layers(self.method.gates(self))

    def _of_layers(self, gates: Sequence[Gate]) -> list[Gate]:
        """For each layer, in the network's order, its part of the units' gates."""
        return list(each_layer(self.groups, [gate.parts(group.sizes) for group, gate in zip(self.groups, gates, strict=True)]))

    def gate(self, layer: LayerState) -> Gate:
        """What is used of one layer: this pass's gate, or outside a pass the ticket's fresh codes. A part that is computed
        anew within the backward pass (torch.utils.checkpoint) gets what it had in the forward pass."""
        now = self.at_work()
        place = next((place for place, other in enumerate(self.layers) if other is layer), None)
        if place is None:
            raise UsageError(f"{layer.spec.name} is of a replica (nn.DataParallel?), which has no search of its own: use "
                             "torch.nn.parallel.DistributedDataParallel, or popup.fit under torchrun")
        return self._gate_by_itself(place) if now is None else self._of_layers(now.gates)[place]

    def _gate_by_itself(self, place: int) -> Gate:
        """The ticket's gate of one layer, in no pass: where layers are selected each by itself the others are not looked at, so
        that a part of a deep network that is called by itself takes time by its layers, and not by their square."""
        if self.settings.scope != "layer":
            return self._of_layers(self.ticket_gates())[place]
        self.regroup_if_moved()
        self.layers[place].keep_up()
        layer, scores = self.pairs()[place]
        with torch.no_grad():
            return Gate(self.method.codes(layer, scores, self.top_of_one(self.method.keys(layer, scores), place)))

    def ready(self, place: int) -> torch.Tensor | None:
        """The effective weight that the pass under way has of a layer, if it is one to train by."""
        now = self.at_work()
        return None if now is None else now.ready.get(place)

    def at_work(self) -> Pass | None:
        """The pass that a layer is asked in: that which this thread is in, or in a backward pass that which is computed anew.
        None: in no pass of the whole network. A UsageError if it is not known in which, and passes use other gates."""
        if not in_backward():
            return self.passes.now()
        try:
            found = self.passes.anew()
        except LookupError:
            found = None
        if found is not None or not torch.is_grad_enabled():
            return found or self.passes.last  # a hook looks at what there was
        if not self._settled():
            raise UsageError("a part of the network is computed anew in a backward pass, and was called by itself, or in one of "
                             "several passes: call the network that was attached, give torch.utils.checkpoint "
                             "use_reentrant=False, and train in one thread")
        return self.passes.now()

    def use_of(self, layer: LayerState) -> Use:
        """What is made of one layer that is asked for its weight by itself: outside of a training pass, in one of a part of the
        network, in another dtype than the pass began with."""
        return Use(layer, self.gate(layer), self.method, self.passing, self.trains_the_ticket(), self.at_work())

    def sparse_weight(self, layer: LayerState, place: int) -> SparseWeight | None:
        """What a layer that computes on its edges alone is used by, in a pass of the whole network; else None. One for all that
        learns by it in that pass; what is computed anew in a backward pass is of an earlier one."""
        if layer.products is None:
            return None
        if not self.passing:
            self._alone |= not in_backward() and torch.is_grad_enabled()
            if self._alone or not in_backward():
                return None  # what is computed anew, of a pass that is not known, was sparse then
        now = self.at_work() if torch.is_grad_enabled() else None
        ready = None if now is None else now.ready.get(place)
        if isinstance(ready, SparseWeight):
            return ready
        found = SparseWeight(self.use_of(layer), layer.products, self.scores()[place])
        if now is not None and now.end == inf:
            now.ready[place] = found
        return found

    @property
    def passing(self) -> bool:
        """Whether a layer is asked for in a pass of the whole network, or in what autograd computes of it anew."""
        return self.at_work() is not None

    def trains_the_ticket(self) -> bool:
        """Whether the gates of training are the ticket's own, as of edge_popup at its final k."""
        return self.method.trains_ticket and self.k_now() == self.recipe.k

    def _settled(self) -> bool:
        """Whether passes were trained by the ticket a step ago, too: one whose backward pass is now was begun before that."""
        return self.trains_the_ticket() and self._k_at(self.before) == self.recipe.k

"""The search inside one network: what its hooks do before, in and after a forward pass, and what a step of the optimiser does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.answers import Answers
from popup.search.methods.method import Method
from popup.search.passes import Pass, Passes, in_function
from popup.search.settings import SearchSettings
from popup.search.sharding import is_sharded
from popup.search.sparse_weight import SparseWeight
from popup.search.states import check_states, refuse_assigned
from popup.search.untouched import Untouched
from popup.search.weighing import Use, weigh
from popup.source.layers import skip_of
from popup.source.recipe import Recipe


class Search(Answers):
    """What `attach` leaves on a network. In a forward pass of the network every layer's gate is made once."""

    def __init__(self, recipe: Recipe, settings: SearchSettings) -> None:
        super().__init__(recipe, settings)
        self.between = type(self.method).after_step is not Method.after_step  # whether it looks at scores between steps
        self.meaning = self.method.book.meaning()  # of codes, as the search began
        self._seen, self._unseen = False, False  # whether there was a training pass; one since kept weights were looked at
        self.looked = False                      # whether at what the network's products get, with inputs of its own
        self.ordered = not settings.ordered
        self.asked: set[str] = set()             # the layers that some pass with gradients has asked for
        self._loads = False                      # whether what is being loaded is a search
        self.moves = 0                           # steps that this object was told of
        self.known = ""                          # what tells the network from another, as popup.fit has noted it
        self.finished: bool | None = None        # whether popup.fit came to its end, if it has attached this
        self.untouched: Untouched
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    @torch._disable_dynamo
    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of the network: select once for the whole pass. A pass that can be trained by uses the method's
        gates; evaluation, and whatever runs without gradients, the ticket."""
        self.sharded = self.sharded or is_sharded(module, self.settings.method, self.between)
        learning = torch.is_grad_enabled()
        training = (module.training or self.ordering) and learning
        if training and in_function() and not self.trains_the_ticket():
            raise UsageError("a forward pass of the whole network was done without gradients, with the ticket, and is now done "
                             "again with what the search trains by: give torch.utils.checkpoint use_reentrant=False")
        for layer in self.layers:
            layer.begin()
        if training:
            self.refuse_unordered()
        else:
            self.check_weights()
        begun = self.passes.begin(self.method.gates(self) if training else self.ticket_gates(), training)
        if training:
            self._weigh(begun)

    def _weigh(self, begun: Pass) -> None:
        """Have the effective weights of a training pass ready, which the layers are asked for in it. All of them now takes less
        time than each for itself between two convolutions, which leave neither code nor data in the processor's cache."""
        scores = self.scores()
        for group, gate in zip(self.groups, begun.gates, strict=True):
            if group.sparse:
                continue  # no weight is made
            use = Use(group, gate, self.method, True, True, begun)
            begun.ready.update(zip(group.places, weigh(group, use, [scores[place] for place in group.places]), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """A copy is in no pass."""
        return {**vars(self), "passes": Passes()}

    @torch._disable_dynamo
    def end(self, module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        """Forward hook of the network, called after an exception too: the gates are good for one pass only."""
        ended = self.passes.end()
        if ended is None:
            return
        weights = ended.ready.values()
        ended.close()
        if not ended.learning or output is None:
            return
        if not self._seen:
            self.check_weights()
            for weight in weights:
                if isinstance(weight, SparseWeight):
                    weight.check()
        self._seen = self._unseen = True

    def check_weights(self) -> None:
        """A UsageError if somebody has written to what training passes computed with. Looked at after the first of them, and
        where the ticket is used after some."""
        look, self._unseen = self._unseen or not self._seen, False
        for group in self.groups:
            group.check_kept() if look else group.refuse_again()

    def check_asked(self) -> None:
        """A UsageError for a layer that no training pass has asked for its weight, if there were some."""
        for layer in self.layers:
            name = layer.spec.name
            if self._seen and name not in self.asked:
                raise UsageError(f"{name} was asked for its weight by none of the training passes, so that its scores are the "
                                 "first ones: let forward ask the layer's module each time, and not hold its tensor; or "
                                 f"leave the layer out: {skip_of(name)}")

    def penalty(self) -> torch.Tensor | None:
        """What the method adds to the loss, a scalar; None: nothing."""
        parts = [part for pair in self.pairs() if (part := self.method.penalty(*pair)) is not None]
        return torch.stack(parts).sum() if parts else None

    def advance(self, progress: float) -> None:
        """A step of the optimiser is done; `progress` of the whole search is behind us."""
        self.moves += 1
        was = self.steps, self.before, self.progress
        self.steps, self.before, self.progress = self.steps + 1, self.progress, progress
        drawn = [] if self.method.book.keeps_weights else [layer.drawn for layer in self.layers]
        try:
            self.method.after_step(self)
        except BaseException:
            self.steps, self.before, self.progress = was  # a step that is told of again is one step
            raise
        if drawn:
            for layer in self.layers:
                layer.keep_up()  # a method that has written down other redraws has drawn anew, too
            self._check_redraws(drawn)

    def _check_redraws(self, before: list[torch.Tensor]) -> None:
        """A UsageError if an edge that is selected has another draw than `before`: of the layers that hold other draws now."""
        if all(layer.drawn is drawn for layer, drawn in zip(self.layers, before, strict=True)):
            return
        used = self.of_layers(self.top([self.method.training_keys(*unit) for unit in self.units()], self.k_now()))
        for layer, drawn, mask in zip(self.layers, before, used, strict=True):
            if bool(((layer.drawn != drawn) & mask).any()):
                raise UsageError(f"method {self.settings.method} draws weights anew of edges that are selected, in "
                                 f"{layer.spec.name}: let it use the search's own redraw, which leaves these out")

    def loading(self, module: nn.Module, state: Mapping[str, torch.Tensor], prefix: str, about: Mapping[str, Any],
                *others: object) -> None:
        """Hook of the network, called before a state_dict is loaded: refuse what is not of this search, or not whole, while
        nothing is changed."""
        self._loads = check_states(self.layers, self.scores(), module, state, prefix, self.settings.method)
        if self._loads and about.get("assign_to_params_buffers"):
            refuse_assigned(self.layers, self.scores(), state, prefix)

    def loaded(self, module: nn.Module, keys: object) -> None:
        """Hook of the network, called when a state_dict has been loaded: be where its search was."""
        if self._loads:
            self.untouched.renew(module, self.scores())
            self.finished = self.finished if self.finished is None else True  # its scores are no longer those of a broken one
            for group in self.groups:
                group.forget()
        self.resume(self.steps, self.progress)

"""What `attach` leaves on a network: its recipe, its settings, its attached layers, and the selection over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import nn
from torch.nn.utils import parametrize

from popup.errors import UsageError, check_number
from popup.search.keys import Keys
from popup.search.methods import METHODS
from popup.search.methods.method import Method
from popup.search.parametrization import EdgeWeight
from popup.search.schedule import k_at
from popup.search.select import SCOPES, Bracket
from popup.search.settings import SearchSettings
from popup.search.states import check_states
from popup.search.untouched import Untouched
from popup.source.layers import Layer, owner
from popup.source.recipe import Recipe, kept_edges

ATTRIBUTE = "popup_search"


@dataclass(frozen=True)
class LayerDensity:
    """One layer's row: how many entries, the p_l asked for, the edges drawn, how many are kept, kept / entries."""

    name: str
    entries: int
    p_l: float
    edges: int
    kept: int
    density: float


class Search:
    """The search inside one network. In a forward pass of the network every mask is selected once.

    `steps` of the optimiser have been done, and `progress`, in [0, 1], of the whole search; `before` is the progress of a
    step ago. They move by `advance`, and matter to methods and schedules that change on the way.
    """

    def __init__(self, recipe: Recipe, settings: SearchSettings) -> None:
        self.recipe, self.settings = recipe, settings
        self.method = METHODS[settings.method](settings)
        self.steps, self.before, self.progress = 0, 0.0, 0.0
        self.layers: list[EdgeWeight] = []
        self._brackets: list[Bracket] = []
        self._owners: list[tuple[nn.Module, str]] = []
        self._pass: list[torch.Tensor] | None = None
        self._trained: list[torch.Tensor] | None = None  # the gates of the last pass with gradients
        self._hidden = False                             # whether the last pass was one of training mode without gradients
        self._loads = False                              # whether what is being loaded is a search
        self.untouched: Untouched
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    def add(self, net: nn.Module, layer: EdgeWeight) -> None:
        """Take one attached layer of `net` into the search."""
        self.layers.append(layer)
        self._brackets.append(Bracket())
        self._owners.append(owner(net, layer.layer.name))

    def check_owners(self, net: nn.Module) -> None:
        """A UsageError unless the layers of `net` are those that were attached: their scores, or another mask, would be taken
        for what the network computes."""
        for layer in self.layers:
            path, _, name = layer.layer.name.rpartition(".")
            try:
                module = net.get_submodule(path)
            except AttributeError:
                module = None
            if not parametrize.is_parametrized(module, name) or module.parametrizations[name][0] is not layer:
                raise UsageError(f"{layer.layer.name} is no longer what attach made of it (was its module replaced, or pruned?): "
                                 "change a network before it is attached")

    def scores(self) -> list[nn.Parameter]:
        """The score parameter [edges] of each layer, in the network's order."""
        return [getattr(module.parametrizations, name).original for module, name in self._owners]

    def pairs(self) -> list[tuple[EdgeWeight, nn.Parameter]]:
        """Each layer with its scores."""
        return list(zip(self.layers, self.scores(), strict=True))

    def k_now(self) -> float:
        """The fraction of edges that the search keeps now; in the end that of the ticket."""
        settings = self.settings
        return k_at(settings.anneal, settings.k_start, self.recipe.k, self.progress, settings.anneal_until)

    def scale_now(self) -> float:
        """What a selection at `k_now` is multiplied by, so that activations keep the size that the ticket's have: W has the
        deviation that suits k, and sqrt(k / k_now) times it suits k_now."""
        return sqrt(self.recipe.k / self.k_now())

    def top(self, keys: Sequence[Keys], k: float) -> list[torch.Tensor]:
        """For each layer the edges with the highest `keys` [edges], at `k` and in the settings' scope."""
        counts = [layer.kept if k == self.recipe.k else kept_edges(k, layer.count) for layer in self.layers]
        floors = [self.settings.floor_of(count) for count in counts]
        return SCOPES[self.settings.scope](keys, counts, self._brackets, floors)

    def select(self) -> list[torch.Tensor]:
        """S_P, the ticket as it is now: for each layer one bool an edge."""
        return self.top([self.method.keys(*pair) for pair in self.pairs()], self.recipe.k)

    def counts(self) -> list[int]:
        """How many edges of each layer S_P has now. On "meta" scores have no values, and layer by layer it takes none."""
        if self.settings.scope == "layer" and self.layers[0].values.is_meta:
            return [layer.kept for layer in self.layers]
        self.layers[0].check_data()
        return [int(mask.sum()) for mask in self.select()]

    def gate(self, layer: EdgeWeight) -> torch.Tensor:
        """What one layer's weights are multiplied by [edges]: this pass's gate, or outside a pass the ticket's fresh mask. A
        part that is computed anew within the backward pass (torch.utils.checkpoint) gets what it had in the forward pass (of
        several that wait for theirs, what the last had)."""
        if self._pass is not None:
            gates = self._pass
        else:
            gates = self._trained if self._trained is not None and _in_backward() else self.select()
        place = next((place for place, other in enumerate(self.layers) if other is layer), None)
        if place is None:
            raise UsageError(f"{layer.layer.name} is of a replica (nn.DataParallel?), which has no search of its own: use "
                             "torch.nn.parallel.DistributedDataParallel, or popup.fit under torchrun")
        return gates[place]

    @torch._disable_dynamo
    def begin(self, module: nn.Module, inputs: tuple) -> None:
        """Forward pre-hook of the network: select once for the whole pass. A pass that can be trained by uses the method's
        gates; evaluation, and whatever runs without gradients, the ticket."""
        learning = torch.is_grad_enabled()
        training = module.training and learning
        if training and self._hidden and _in_backward() and not self.trains_the_ticket():
            raise UsageError("a forward pass of the whole network was done without gradients, with the ticket, and is now done "
                             "again with what the search trains by: give torch.utils.checkpoint use_reentrant=False")
        self._hidden = module.training and not learning
        self._pass = self.method.gates(self) if training else self.select()
        self._trained = self._pass if learning else self._trained
        for layer, gate in zip(self.layers, self._pass, strict=True):
            layer.prepare(gate)

    @property
    def in_pass(self) -> bool:
        """Whether a forward pass of the network is under way."""
        return self._pass is not None

    @property
    def passing(self) -> bool:
        """Whether a layer is asked for in a pass of the whole network, or in what autograd computes of it anew."""
        return self.in_pass or _in_backward()

    def trains_the_ticket(self) -> bool:
        """Whether the gates of training are the selection of the ticket, as of edge_popup at its final k."""
        own = type(self.method)
        return (own.gates is Method.gates and own.training_keys is Method.training_keys and own.keys is Method.keys
                and self.k_now() == self.recipe.k)

    def __getstate__(self) -> dict:
        """A copy is in no pass."""
        return {**vars(self), "_pass": None, "_trained": None}

    @torch._disable_dynamo
    def end(self, module: nn.Module, inputs: tuple, output: object) -> None:
        """Forward hook of the network, called after an exception too: the masks are good for one pass only."""
        self._pass = None
        for layer in self.layers:
            layer.kept_weight.places = None

    def penalty(self) -> torch.Tensor | None:
        """What the method adds to the loss, a scalar; None: nothing."""
        parts = [part for pair in self.pairs() if (part := self.method.penalty(*pair)) is not None]
        return torch.stack(parts).sum() if parts else None

    def advance(self, progress: float) -> None:
        """A step of the optimiser is done; `progress` of the whole search is behind us."""
        self.steps, self.before, self.progress = self.steps + 1, self.progress, progress
        self.method.after_step(self)

    def resume(self, steps: int, progress: float) -> None:
        """Be where a search was after `steps`, its scores and memory being restored already."""
        self.steps, self.before, self.progress = steps, progress, progress
        self.method.restored(self)

    def loading(self, module: nn.Module, state: Mapping[str, torch.Tensor], prefix: str, *others: object) -> None:
        """Hook of the network, called before a state_dict is loaded: refuse what is not of this search, or not whole, while
        nothing is changed."""
        self._loads = check_states(self.layers, module, state, prefix)

    def loaded(self, module: nn.Module, keys: object) -> None:
        """Hook of the network, called when a state_dict has been loaded: be where its search was."""
        if self._loads:
            self.untouched.renew(module, self.scores())
        self.resume(self.steps, self.progress)

    def memory(self) -> dict[str, torch.Tensor]:
        """What the method remembers, by layer and name."""
        return {f"{layer.layer.name}/{name}": layer.memory(name) for layer in self.layers for name in layer.memories}


def _in_backward() -> bool:
    """Whether autograd is at work, which calls forward functions to compute anew what was not kept."""
    return torch._C._current_graph_task_id() != -1


def search_of(net: nn.Module) -> Search:
    """The search that `attach` left on `net`; a UsageError if there is none."""
    search = getattr(net, ATTRIBUTE, None)
    if search is None:
        raise UsageError(f"{type(net).__name__} is not attached: call popup.attach(net, ...) first")
    search.check_owners(net)
    return search


def is_attached(net: nn.Module) -> bool:
    """Whether `net` is the network that attach was called on."""
    return getattr(net, ATTRIBUTE, None) is not None


def scores(net: nn.Module) -> list[nn.Parameter]:
    """The only parameters that learn: one 1-D float32 tensor [edges] a layer. Hand them to any optimiser."""
    return search_of(net).scores()


def advance(net: nn.Module, progress: float) -> None:
    """Tell the search in `net` that a step of the optimiser is done, `progress` in [0, 1] of the whole search being behind
    it. For loops of one's own with a method or a schedule that changes on the way; `popup.fit` does it."""
    search_of(net).advance(check_number("progress", progress, 0.0, 1.0))


def penalty(net: nn.Module) -> torch.Tensor:
    """What the method wants added to the loss, a scalar; 0 for those that want nothing."""
    search = search_of(net)
    found = search.penalty()
    return search.scores()[0].new_zeros(()) if found is None else found


def densities(net: nn.Module) -> list[LayerDensity]:
    """One row a layer, with what S_P keeps now (under a global scope it moves between the layers)."""
    search = search_of(net)
    return [density_row(layer.layer, layer.p_l, layer.count, kept)
            for layer, kept in zip(search.layers, search.counts(), strict=True)]


def density_row(layer: Layer, p_l: float, edges: int, kept: int) -> LayerDensity:
    """The row of one layer from its counts."""
    return LayerDensity(layer.name, layer.entries, p_l, edges, kept, kept / layer.entries)

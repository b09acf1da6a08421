"""Methods that are wrong on purpose: each trains, computes or stores another network than its ticket, or breaks a law, in one
way. What catches each: test_wrong_methods.py."""

from dataclasses import dataclass

import torch

from popup.search.gate import Gate
from popup.search.layer_state import REDRAW, LayerState
from popup.search.methods.iterand import Iterand
from popup.search.methods.method import Method
from popup.search.methods.signed import Signed
from popup.source.books import Factors


def trained_by(state, method, k=None, codes=None):
    """Gates of the selection at `k` with the `codes` of that method."""
    masks = state.top([method.keys(*pair) for pair in state.pairs()], k or state.recipe.k)
    return [Gate((codes or method.codes)(*pair, mask)) for pair, mask in zip(state.pairs(), masks, strict=True)]


class DroppedSign(Signed):
    """Trains by signs, and stores none."""

    def codes(self, layer, scores, selected):
        return selected.to(torch.uint8)

    def gates(self, state):
        return trained_by(state, self, codes=super().codes)


class SignAsFactor(Method):
    """Issue fault 6: the sign of s times the mask, of a book that has no sign."""

    def gates(self, state):
        return [Gate(gate.codes, scores.detach().sign()) for gate, scores in zip(super().gates(state), state.scores(),
                                                                                 strict=True)]


class MinusW(Method):
    """Trains by -W."""

    def gates(self, state):
        return [Gate(gate.codes, -1.0) for gate in super().gates(state)]


class ForgottenScale(Method):
    """Trains by W / 2."""

    def gates(self, state):
        return [Gate(gate.codes, 0.5) for gate in super().gates(state)]


class NoisyCodes(Signed):
    """Signs are drawn at each call, in evaluation too."""

    def codes(self, layer, scores, selected):
        return torch.randint(1, 3, selected.shape, dtype=torch.uint8) * selected


class NoisyKeys(Method):
    """Noise in what the ticket is chosen by."""

    def keys(self, layer, scores):
        return self.rank(scores * (1 + torch.randn_like(scores)))


class OneTooMany(Method):
    """A threshold that is off by one: a code for one edge more than is selected."""

    def codes(self, layer, scores, selected):
        others = selected.clone()
        others[(~selected).nonzero()[:1]] = True
        return others


class OneTooFew(Method):
    """And for one less."""

    def codes(self, layer, scores, selected):
        others = selected.clone()
        others[selected.nonzero()[-1:]] = False
        return others


class Elsewhere(Method):
    """As many codes as must be, for other edges than those selected."""

    def codes(self, layer, scores, selected):
        return selected.roll(1)


class OneMoreTrained(Method):
    """The ticket is right, and what is trained has an edge more."""

    def gates(self, state):
        return trained_by(state, self, codes=lambda layer, scores, selected: OneTooMany.codes(self, layer, scores, selected))


class OutsideTheSource(Method):
    """An edge outside S_ER: the edges are moved."""

    def after_step(self, state):
        state.layers[0].gaps.copy_(state.layers[0].gaps.flip(0))


class SkippedLayer(Method):
    """The first layer is trained with all its edges."""

    def gates(self, state):
        first, *others = super().gates(state)
        return [Gate(torch.ones_like(first.codes)), *others]


class WholeLayer(Method):
    """The first layer keeps all its edges, and says that it must."""

    def after_step(self, state):
        state.layers[0].kept = state.layers[0].count


class ChangedWeight(Method):
    """A step changes weights."""

    def after_step(self, state):
        state.layers[1].values.mul_(1.1)


class ChangedUnseen(Method):
    """A step changes a weight by a way that torch does not count."""

    def after_step(self, state):
        state.layers[1].values.numpy()[:] *= 1.1


class NoSuchCode(Signed):
    """Codes that its book does not have."""

    def codes(self, layer, scores, selected):
        return 3 * super().codes(layer, scores, selected)


class WrittenRedraws(Iterand):
    """Selected edges have another redraw, by what is remembered alone."""

    def after_step(self, state):
        for layer in state.layers:
            layer.memory(REDRAW).fill_(1)


class SelectedRedrawn(Iterand):
    """Selected edges have their weights drawn anew."""

    def after_step(self, state):
        for layer in state.layers:
            layer.redraw(torch.ones(layer.count, dtype=torch.bool), state.steps)


class RememberedRedrawn(Iterand):
    """The same, by what is remembered and the way that a checkpoint takes."""

    def after_step(self, state):
        for layer in state.layers:
            layer.memory(REDRAW).fill_(state.steps)
            layer.redraw_as_remembered()


GROWN = {"factor": 1.0}  # what no ticket holds


@dataclass(frozen=True)
class Growing(Factors):
    """Values that depend on what the ticket does not hold."""

    def _of(self, values, codes, where):
        return super()._of(values * GROWN["factor"], codes, where)


class RunningState(Method):
    """A book whose values grow in the course of a search."""

    book = Growing("plain", 2)

    def after_step(self, state):
        GROWN["factor"] = 1.0 + 2 * state.progress


class OwnBook(Method):
    """The method that is attached has another book than its class."""

    def __init__(self, settings):
        super().__init__(settings)
        self.made = getattr(type(self), "made", 0) + 1
        type(self).made = self.made
        self.book = Factors("plain", 2, factors=(0.0, 1.0 + self.made))


@dataclass(frozen=True)
class Forgetful(Factors):
    """A book that forgets signs where few edges are asked for."""

    def some(self, weights, codes, places):
        return abs(super().some(weights, codes, places))


class FewOtherwise(Signed):
    """The weight that is kept from step to step is another than one made anew."""

    book = Forgetful("signed", 3, factors=(0.0, 1.0, -1.0))


class OtherK(Method):
    """Trains by other k to the end."""

    def gates(self, state):
        return trained_by(state, self, k=0.9)


class OtherKUntilTheEnd(Method):
    """And one that trains by the ticket's where the search is over, which no step is."""

    def gates(self, state):
        return super().gates(state) if state.progress == 1 else trained_by(state, self, k=0.9)


class OtherKInLarge(Method):
    """And one that does so in layers of some size alone."""

    def gates(self, state):
        return trained_by(state, self, k=0.9) if state.layers[0].count > 35 else super().gates(state)


class Multiplied(Method):
    """A layer's state whose effective weights are others than its book's."""

    def first_memory(self, layer, scores, seed):
        layer.effective = lambda gate: 2 * LayerState.effective(layer, gate)
        return {}


class Hooked(Method):
    """Noise in the layer's weight, in evaluation too."""

    def first_memory(self, layer, scores, seed):
        layer.register_forward_hook(lambda layer, inputs, weight: weight * (1 + 0.1 * torch.randn_like(weight)))
        return {}


class ByMode(Signed):
    """Signs where gradients are recorded, and none where accuracy is measured."""

    def codes(self, layer, scores, selected):
        return super().codes(layer, scores, selected) if torch.is_grad_enabled() else selected.to(torch.uint8)


class SpoiledWeight(Method):
    """What a search keeps of a layer's weight is written to, as torch does not count it."""

    def after_step(self, state):
        state.groups[0].cached_weight.memory.mul_(2)


@dataclass(frozen=True)
class TwoFaces(Factors):
    """Weights of a search are others than those of a ticket."""

    def values(self, weights, codes):
        return super().values(weights, codes) * (2 if isinstance(weights, LayerState) else 1)


class TwoFaced(Method):
    """The book tells a search from a ticket."""

    book = TwoFaces("plain", 2)


class LateSign(Method):
    """Factors below 0, later: a method that does not say that it trains the ticket owes no ticket with them either."""

    trains_ticket = False

    def gates(self, state):
        return [Gate(gate.codes, -1.0 if state.steps else 1.0) for gate in super().gates(state)]

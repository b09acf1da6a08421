"""Methods that are wrong on purpose: each trains, computes or stores another network than its ticket, or breaks a law, in one
way. `WRONG` says of each what attach says of it (None: nothing, a small layer does not show it), what of a run's proof, or
which refusal, catches it, and what the contract test says."""

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
        self.book = Factors("plain", 2, factors=(0.0, float(self.made)))


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


class LateSign(Method):
    """Factors below 0, later: a method that does not say that it trains the ticket owes no ticket with them either."""

    trains_ticket = False

    def gates(self, state):
        return [Gate(gate.codes, -1.0 if state.steps else 1.0) for gate in super().gates(state)]


@dataclass(frozen=True)
class Wrong:
    """What must be said of a wrong method: by attach (None: nothing), by the proof (a field) or a refusal (words) of a run."""

    method: type[Method]
    attach: str | None
    field: str = ""
    refusal: str = ""


WRONG = [
    Wrong(DroppedSign, "other codes than the ticket has", "trained"),
    Wrong(SignAsFactor, "factors go from -1 to 1", "trained"),
    Wrong(MinusW, "factors go from -1 to -1", "trained"),
    Wrong(ForgottenScale, "trained 0.5 times as large", "trained"),
    Wrong(NoisyCodes, "other codes than the ticket has", "outside"),
    Wrong(NoisyKeys, "other codes than the ticket has|at other edges", "misused"),
    Wrong(OneTooMany, "at other edges", "miscounted"),
    Wrong(OneTooFew, "at other edges", "miscounted"),
    Wrong(Elsewhere, "at other edges", "trained"),
    Wrong(OneMoreTrained, "other codes than the ticket has", "trained"),
    Wrong(OutsideTheSource, None, "outside"),
    Wrong(SkippedLayer, "other codes than the ticket has", "trained"),
    Wrong(WholeLayer, None, "miscounted"),
    Wrong(ChangedWeight, None, "changed"),
    Wrong(ChangedUnseen, None, "changed"),
    Wrong(NoSuchCode, "not those of the book 'signed'", "trained"),
    Wrong(WrittenRedraws, None, refusal="not finite"),
    Wrong(SelectedRedrawn, None, refusal="draws weights anew of edges that are selected"),
    Wrong(RememberedRedrawn, None, refusal="draws weights anew of edges that are selected"),
    Wrong(RunningState, None, "changed"),
    Wrong(OwnBook, "another book", "misused"),
    Wrong(FewOtherwise, None, "outside"),
    Wrong(OtherK, "other codes than the ticket has", "trained"),
    Wrong(OtherKUntilTheEnd, "other codes than the ticket has", ""),
    Wrong(OtherKInLarge, None, "trained"),
    Wrong(Multiplied, None, "outside"),
    Wrong(LateSign, None, "trained"),
]

"""A network with shortcuts as a chain: what a shortcut passes by is carried along by neurons of the layers beside it.

Between two ReLUs all is one layer. What is added behind it but comes from further below has to pass its ReLU: x = relu(x) where
x >= 0, as all is that comes out of a ReLU, and x = relu(x) - relu(-x) elsewhere. So y = W_2 relu(W_1 x) + x is a chain whose
first layer is W_1 with an identity below it, and whose second is W_2 beside an identity: exactly the same function, of as many
layers, whose source needs no shortcut. Of convolutions the identity has its 1 at the tap that reads the pixel itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from popup.theory.steps import Sides, Step
from popup.theory.target import TargetLayer


@dataclass(frozen=True)
class Units:
    """Some of a level's channels, or neurons: so many from `start` on, behind so many of the level's pools. `signed`: they may
    be negative. `flat`: no map any more."""

    level: int
    start: int
    count: int
    pools: int = 0
    flat: bool = False
    signed: bool = False


@dataclass(frozen=True)
class Sum:
    """A layer's outputs before their ReLU: the sum over `terms` of weights [out, in, taps] of units of one level, and a bias
    [out]. `positive`: it is never below 0."""

    level: int
    step: Step
    terms: tuple[tuple[Units, np.ndarray], ...]
    bias: np.ndarray
    positive: bool = False

    def scaled(self, factor: np.ndarray, shift: np.ndarray) -> Sum:
        """Each channel times its factor, and a shift."""
        terms = tuple((units, factor[:, None, None] * weight) for units, weight in self.terms)
        return replace(self, terms=terms, bias=factor * self.bias + shift, positive=False)


@dataclass
class Level:
    """The units behind one layer's ReLU (level 0: the input): `members` side by side, then pools."""

    members: list[Sum] = field(default_factory=list)
    pools: list[Step] = field(default_factory=list)


class Levels:
    """A network's levels, as its graph is followed from the input on. `refuse`: makes the error of what cannot be."""

    def __init__(self, image: tuple[int, ...], signed: bool, refuse: Callable[[str], Exception]) -> None:
        self.refuse = refuse
        flat = len(image) != 3
        self._image: Sides = (1, 1) if flat else (image[1], image[2])
        self.input = Units(0, 0, prod(image) if flat else image[0], flat=flat, signed=signed)
        self._levels = [Level()]

    def sides(self, level: int, pools: int | None = None) -> Sides:
        """The map of a level, behind all of its pools or the first so many."""
        own = self._levels[level]
        sides = self._image if not level else self.after(own.members[0])
        for pool in own.pools[:pools]:
            sides = pool.sides(sides)
        return sides

    def after(self, found: Sum) -> Sides:
        """The map that a layer makes."""
        return (1, 1) if found.step.kind == "linear" else found.step.sides(self.sides(found.level))

    def flatten(self, units: Units) -> Units:
        """Of the input each pixel becomes a neuron of its own; behind a layer a linear one reads maps as they are."""
        if units.level or units.flat:
            return replace(units, flat=True)
        if not self.input.flat:
            self.input = replace(units, count=units.count * prod(self.sides(0)), flat=True)
            self._image = (1, 1)
        return self.input

    def pool(self, units: Units, step: Step) -> Units:
        """The units behind a pool, which is the whole level's."""
        pools = self._levels[units.level].pools
        if units.pools == len(pools):
            pools.append(step)
        elif pools[units.pools] != step:
            raise self.refuse("a shortcut passes by a pool")
        return replace(units, pools=units.pools + 1)

    def relu(self, found: Units | Sum) -> Units:
        """What comes out of a ReLU: of a sum new units of the next level."""
        if isinstance(found, Units):
            if found.signed:
                raise self.refuse("a ReLU of its input stands before its first layer, beside a shortcut or a norm")
            return found
        if found.level + 1 == len(self._levels):
            self._levels.append(Level())
        members = self._levels[found.level + 1].members
        units = Units(found.level + 1, sum(len(one.bias) for one in members), len(found.bias), flat=found.step.kind == "linear")
        members.append(found)
        return units

    def identity(self, units: Units) -> Sum:
        """Units as a layer's outputs."""
        if units.flat and prod(self.sides(units.level)) > 1:
            raise self.refuse("a shortcut passes by a linear layer that reads a map")
        step = Step("linear" if units.flat else "conv")
        return Sum(units.level, step, ((units, np.eye(units.count)[:, :, None]),), np.zeros(units.count), not units.signed)

    def lift(self, found: Units | Sum) -> Sum:
        """The same, one level higher."""
        one = found if isinstance(found, Sum) else self.identity(found)
        if one.positive:
            return self.identity(self.relu(one))
        minus = np.full(len(one.bias), -1.0)
        parts = [self.identity(self.relu(part)) for part in (one, one.scaled(minus, np.zeros(len(minus))))]
        return self.add(parts[0], replace(parts[1].scaled(minus, np.zeros(len(minus))), positive=False))

    def add(self, one: Units | Sum, other: Units | Sum) -> Sum:
        """The sum of two values; the one from further below is carried up to the other's level."""
        left, right = (self.identity(value) if isinstance(value, Units) else value for value in (one, other))
        while left.level < right.level:
            left = self.lift(left)
        while right.level < left.level:
            right = self.lift(right)
        if len(left.bias) != len(right.bias) or self.after(left) != self.after(right):
            raise self.refuse("it adds what is not of one shape")
        left, right = self._alike([left, right])
        return Sum(left.level, left.step, left.terms + right.terms, left.bias + right.bias, left.positive and right.positive)

    def _alike(self, sums: Sequence[Sum]) -> list[Sum]:
        """Layers of one level by one kernel: those of one pixel stand at the tap of the widest that reads it."""
        step = max((one.step for one in sums), key=lambda step: prod(step.kernel))
        return [self._with_step(one, step) for one in sums]

    def _with_step(self, one: Sum, step: Step) -> Sum:
        own = one.step
        if own == step:
            return one
        taps = [pad // apart for pad, apart in zip(step.padding, step.dilation, strict=True)]
        if (own.kind != step.kind or own.kernel != (1, 1) or any(own.padding) or own.stride != step.stride
                or any(pad % apart for pad, apart in zip(step.padding, step.dilation, strict=True))
                or any(tap >= side for tap, side in zip(taps, step.kernel, strict=True))):
            raise self.refuse(f"beside its {step.word} a shortcut would have to pass as {own.word}, which is of other pixels")
        size, place = prod(step.kernel), taps[0] * step.kernel[1] + taps[1]
        terms = []
        for units, weight in one.terms:
            wide = np.zeros((*weight.shape[:2], size))
            wide[:, :, place] = weight[:, :, 0]
            terms.append((units, wide))
        return replace(one, step=step, terms=tuple(terms))

    def chain(self, outputs: Units | Sum) -> tuple[tuple[TargetLayer, ...], list[Step]]:
        """The layers and steps of the chain whose outputs these are."""
        members = [level.members for level in self._levels[1:]] + ([[outputs]] if isinstance(outputs, Sum) else [])
        if isinstance(outputs, Units) and (outputs.level + 1 < len(self._levels) or len(members[-1]) > 1):
            raise self.refuse("it has layers that lead to no output")
        layers, steps = list[TargetLayer](), list(self._levels[0].pools)
        for place, sums in enumerate(members):
            alike = self._alike(sums)
            layers.append(self._layer(place, alike))
            steps.append(alike[0].step)
            if place + 1 < len(self._levels):
                steps += [Step("relu"), *self._levels[place + 1].pools]
        return tuple(layers), steps

    def _layer(self, level: int, sums: Sequence[Sum]) -> TargetLayer:
        """The layer that makes these, side by side, of a level's units."""
        pools = self._levels[level].pools
        inputs = sum(len(one.bias) for one in self._levels[level].members) if level else self.input.count
        out, taps = sum(len(one.bias) for one in sums), sums[0].terms[0][1].shape[2]
        weight, first = np.zeros((out, inputs, taps)), 0
        for one in sums:
            for units, part in one.terms:
                if units.pools != len(pools):
                    raise self.refuse("a shortcut passes by a pool")
                if not level and units.flat != self.input.flat:
                    raise self.refuse("it takes its input as a map and as numbers")
                weight[first:first + len(part), units.start:units.start + units.count] += part
            first += len(one.bias)
        step = sums[0].step
        inside = step.inside(self.sides(level)) if step.kind == "conv" else 0
        if inside is None:
            raise self.refuse(f"its {step.word} has no tap that lies nowhere in the padding, which a bias needs")
        return TargetLayer(weight.reshape(out, -1), np.concatenate([one.bias for one in sums]), taps, inside, any(step.padding))

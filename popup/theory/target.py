"""The target f_T: a chain of layers with one activation between them, and what of it the proof's error budget needs.

A convolution is a layer whose neurons are channels and whose inputs are the taps of each channel; a linear layer behind
maps of several pixels is a convolution whose kernel is the whole map; any other linear layer has one tap an input.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from popup.theory.activation import KINDS, Activation
from popup.theory.steps import LAYERS, Step


@dataclass(frozen=True)
class TargetLayer:
    """One layer of the target: weight float64 [out, in * taps], the taps of a channel next to each other, bias float64
    [out]. `inside`: a tap that is never in the padding. `padded`: others are."""

    weight: np.ndarray
    bias: np.ndarray
    taps: int = 1
    inside: int = 0
    padded: bool = False

    @property
    def channels(self) -> int:
        """The channels, or neurons, of its input."""
        return self.weight.shape[1] // self.taps

    @property
    def largest(self) -> float:
        """The largest absolute value of its parameters."""
        return float(max(np.abs(self.weight).max(), np.abs(self.bias).max()))


@dataclass(frozen=True)
class Target:
    """f_T on inputs whose every coordinate lies in [low, high]: `steps`, with one of `layers` for each that is a layer."""

    layers: tuple[TargetLayer, ...]
    steps: tuple[Step, ...]
    low: float
    high: float

    @property
    def widths(self) -> list[int]:
        """n_T,0 (the input), n_T,1 .. n_T,L: channels or neurons."""
        return [self.layers[0].channels, *(layer.weight.shape[0] for layer in self.layers)]

    @property
    def parameters(self) -> int:
        """Weights (of grouped convolutions those that are 0 too) and biases."""
        return sum(layer.weight.size + layer.bias.size for layer in self.layers)

    @property
    def activation(self) -> Activation:
        """What stands behind its first layer, and so between all: ReLU of a single layer."""
        kinds = [step.kind for step in self.steps]
        first = next(place for place, kind in enumerate(kinds) if kind in LAYERS)
        found = next((step for step in self.steps[first:] if step.kind in KINDS), Step("relu"))
        return Activation(found.kind, found.slope)

    @property
    def entering(self) -> tuple[float, float]:
        """Between what the first layer's inputs lie: the domain, behind the activations that stand before that layer."""
        ends = np.array([self.low, self.high])
        for step in itertools.takewhile(lambda step: step.kind not in LAYERS, self.steps):
            ends = Activation(step.kind, step.slope)(ends) if step.kind in KINDS else ends  # a pool's are among them
        return float(ends[0]), float(ends[1])

    @property
    def parts(self) -> list[tuple[int, float]]:
        """(sign, factor) of the units that an input of the first layer is a sum of, as of activation.py."""
        return self.activation.parts(*self.entering)

    @property
    def branches(self) -> list[int]:
        """The signs of those: x = relu(x) - relu(-x), of which one is enough for inputs of one sign."""
        return [sign for sign, _ in self.parts]

    @property
    def fractions(self) -> list[int]:
        """Of a target of whole numbers, by layer: what parts of 1 its outputs are whole numbers of behind the averages that
        follow, those before it included."""
        found, parts = list[int](), 1
        for step in self.steps:
            parts *= prod(step.kernel) if step.kind == "avg" else 1
            found = [*found, parts] if step.kind in LAYERS else [*found[:-1], parts] if found else []
        return found

    def source(self, doubled: bool = False) -> str:
        """The words, joined by `-`, of the source's chain: a constant 1 as a last channel and layer 0, of one tap, stand
        before the first layer; `doubled`: and such a layer behind the activation of each but the last."""
        words, kinds = [], [step.kind for step in self.steps if step.kind in LAYERS]
        between = Step(self.activation.kind, slope=self.activation.slope).word
        made, later = 0, not self.activation.homogeneous  # of tanh copies have either sign, and are made behind a pool
        copied = True
        for step in self.steps:
            if later and not copied and (step.kind in LAYERS or step.kind == "flatten"):
                words += [Step(kinds[made - 1]).word, between]
                copied = True
            if step.kind in LAYERS:
                words += [] if made else ["one", Step(step.kind).word, between]
                made += 1
            words.append(step.word)
            if doubled and step.kind in KINDS and 0 < made < len(kinds):
                copied = False
                words += [] if later else [Step(kinds[made - 1]).word, between]
        return "-".join(words)

    def scaled(self, size: float) -> Target:
        """The target whose every parameter is so many times as large."""
        return replace(self, layers=tuple(replace(layer, weight=size * layer.weight, bias=size * layer.bias)
                                          for layer in self.layers))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """f_T in float64: [n, *image] -> [n, out]."""
        return self.outputs(torch.from_numpy(inputs)).numpy()

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """f_T in the number type of its inputs, with their gradient: [n, *image] -> [n, out]."""
        layers = iter(self.layers)
        for step in self.steps:
            layer = next(layers) if step.kind in LAYERS else None
            own = [torch.from_numpy(part).to(x.dtype) for part in (layer.weight, layer.bias)] if layer else []
            x = step(x, *own)
        return x

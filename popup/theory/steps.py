"""The steps of a chain of layers: what each does to a map, and which taps of its kernel lie where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from popup.theory.activation import KINDS

Sides = tuple[int, int]  # height, width
LAYERS, POOLS = ("linear", "conv"), ("max", "avg")


@dataclass(frozen=True)
class Step:
    """conv, linear, one of activation.KINDS, max, avg or flatten; kernel, stride, padding and dilation of those that have one,
    and a leaky ReLU's slope."""

    kind: str
    kernel: Sides = (1, 1)
    stride: Sides = (1, 1)
    padding: Sides = (0, 0)
    dilation: Sides = (1, 1)
    slope: float = 0.0

    @property
    def word(self) -> str:
        """The step as models name it: conv3p1, max2, avg2s1 (a pool's stride is its kernel, if it is not named), relu."""
        if self.kind == "leaky":
            return f"leaky{self.slope!r}"
        if self.kind not in ("conv", *POOLS):
            return self.kind
        stride = self.kernel if self.kind in POOLS else (1, 1)
        named = [("s", self.stride, stride), ("p", self.padding, (0, 0)), ("d", self.dilation, (1, 1))]
        return self.kind + _sides(self.kernel) + "".join(f"{letter}{_sides(sides)}" for letter, sides, usual in named
                                                         if sides != usual)

    def sides(self, sides: Sides) -> Sides:
        """Height and width of the map that it makes of one of these."""
        height, width = ((side + 2 * pad - apart * (kernel - 1) - 1) // stride + 1 for side, kernel, stride, pad, apart in
                         zip(sides, self.kernel, self.stride, self.padding, self.dilation, strict=True))
        return height, width

    def inside(self, sides: Sides) -> int | None:
        """A tap of the kernel, counted row by row, that lies in the padding nowhere on a map of `sides`: the middle one of
        those that there are. None if there is none."""
        middle = []
        for side, out, kernel, stride, pad, apart in zip(sides, self.sides(sides), self.kernel, self.stride, self.padding,
                                                         self.dilation, strict=True):
            taps = [tap for tap in range(kernel) if tap * apart >= pad and (out - 1) * stride + tap * apart - pad < side]
            if not taps:
                return None
            middle.append(taps[(len(taps) - 1) // 2])
        return middle[0] * self.kernel[1] + middle[1]

    def __call__(self, x: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The step on [n, channels, height, width] or [n, features]; weight [out, in * taps] of a layer."""
        if self.kind == "linear" and weight is not None:
            return F.linear(x, weight, bias)
        if self.kind == "conv" and weight is not None:
            return F.conv2d(x, weight.view(len(weight), x.shape[1], *self.kernel), bias, self.stride, self.padding,
                            self.dilation)
        if self.kind == "max":
            return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation)
        if self.kind == "avg":
            return F.avg_pool2d(x, self.kernel, self.stride)
        if self.kind in KINDS:
            return F.relu(x) if self.kind == "relu" else torch.tanh(x) if self.kind == "tanh" else F.leaky_relu(x, self.slope)
        return x.flatten(1)


def _sides(sides: Sides) -> str:
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def flattened(steps: list[Step]) -> list[Step]:
    """The chain with a flatten before its first linear layer, or at the end, as networks flatten by functions too. Whoever
    reads a network compares it with that chain."""
    linear = next((place for place, step in enumerate(steps) if step.kind == "linear"), len(steps))
    return [*steps[:linear], Step("flatten"), *steps[linear:]]

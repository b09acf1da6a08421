"""What stands between layers: ReLU, leaky ReLU or tanh, of the target and of its source alike.

Layer 0 of the source has to make copies of an input x although it has the activation phi too. A leaky ReLU (ReLU is the one of
slope 0) is positively homogeneous, and x = (phi(x) - phi(-x)) / (1 + slope): its neurons copy either branch, times any |w|. tanh
is not, but it is near to x for small x: |tanh(w x) - w x| <= |w x|**3 / 3, so that layer 0 has small weights, and the layer above
large ones; and hidden neurons are copied as they are, times 1. (That source and target share an activation, the first layer's
weights scaled so that it is nearly linear there, is the setting of Burkholz, arXiv 2205.02321, whose abstract and code were read;
its code puts the identity in the place of the first tanh, here that layer has it, and the bound counts what it bends.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("relu", "leaky", "tanh")


@dataclass(frozen=True)
class Activation:
    """One of KINDS; `slope`: a leaky ReLU's below 0."""

    kind: str = "relu"
    slope: float = 0.0

    @property
    def homogeneous(self) -> bool:
        """phi(a x) = a phi(x) for a > 0, so that copies may compute any multiple of a neuron."""
        return self.kind != "tanh"

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self.kind == "tanh":
            return np.tanh(values)
        return np.where(values > 0, values, self.slope * values)

    def parts(self, low: float, high: float) -> list[tuple[int, float]]:
        """(sign, factor) of each unit that an x in [low, high] is the sum of: factor * phi(sign * x), or sign * x where phi is
        near to linear. A branch that is never taken (ReLU), or of which x is a multiple, is left out."""
        if not self.homogeneous:
            return [(1, 1.0)]
        signs = [sign for sign, there in ((1, high > 0), (-1, low < 0)) if there] or [1]
        return [(sign, sign / (1 + self.slope * (len(signs) - 1))) for sign in signs]

    def bent(self, reach: np.ndarray) -> np.ndarray:
        """How far a copy is from linear at most, of an input that its weight makes as large as `reach`."""
        return np.zeros(np.shape(reach)) if self.homogeneous else np.abs(reach) ** 3 / 3

"""How many edges the units of a layer have: outputs (neurons or channels) edges that come in, inputs edges that go out."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from popup.source.layers import Layer


@dataclass(frozen=True, eq=False)
class Degrees:
    """The edges of one weight, counted. Of a grouped convolution the inputs at the same place of their groups count as one."""

    layer: Layer
    p_l: float
    into: np.ndarray  # [outputs]: edges that come into each output neuron or channel
    out: np.ndarray   # [inputs]: edges that go out of each input neuron or channel
    connected: bool = False  # whether the source is one in which no unit is without an edge

    @property
    def edges(self) -> int:
        return int(self.into.sum())

    @property
    def cut(self) -> bool:
        """Whether it has no edge at all, so that nothing passes."""
        return not self.edges

    @property
    def unfed(self) -> int:
        """Dead units: outputs that no edge comes into."""
        return int((self.into == 0).sum())

    @property
    def unheard(self) -> int:
        """Inputs that no edge goes out of."""
        return int((self.out == 0).sum())

    @property
    def expected_into(self) -> float:
        """The mean number of edges into an output, of an ER mask: p_l times what could come in."""
        return self.p_l * self.layer.entries / len(self.into)

    @property
    def expected_out(self) -> float:
        """The mean number of edges out of an input."""
        return self.p_l * self.layer.entries / len(self.out)

    @property
    def expected_unfed(self) -> float:
        """The mean number of outputs without an edge, where edges are drawn independently; none of a connected source."""
        return 0.0 if self.connected else len(self.into) * (1 - self.p_l) ** (self.layer.entries / len(self.into))

    @property
    def expected_unheard(self) -> float:
        """The mean number of inputs without an edge, where edges are drawn independently; none of a connected source."""
        return 0.0 if self.connected else len(self.out) * (1 - self.p_l) ** (self.layer.entries / len(self.out))


def count_degrees(layer: Layer, p_l: float, edges: np.ndarray, connected: bool = False) -> Degrees:
    """The degrees of a weight [outputs, inputs, *kernel] whose `edges` are these flat indices, of a source that is `connected` or
    not; of one that lies otherwise by what feeds each output (of experts: of each)."""
    if layer.sides is not None:
        kept = np.isin(layer.rows(torch.arange(layer.entries, device="cpu").view(layer.shape)).numpy(), edges)
        return Degrees(layer, p_l, kept.sum(1), kept.sum(0).reshape(-1, prod(layer.kernel)).sum(1), connected)
    outputs, inputs, kernel = layer.shape[0], layer.shape[1], prod(layer.kernel)
    into = np.bincount(edges // (inputs * kernel), minlength=outputs)
    out = np.bincount(edges // kernel % inputs, minlength=inputs)
    return Degrees(layer, p_l, into, out, connected)

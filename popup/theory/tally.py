"""How well the parameters of one layer are met, over all of its copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popup.theory.copies import NONE
from popup.theory.sums import Sums


@dataclass(frozen=True)
class LayerFit:
    """How well the parameters of target layer l are met, over all copies: mean candidates of those that need any (at most
    MOST_CANDIDATES are used), and edges a parameter, the share within tolerance, and the largest error of a parameter."""

    parameters: int
    candidates: float
    edges: float
    met: float
    largest: float
    tolerance: float


class Tally:
    """What the sums of a layer add up to, block for block; `limit`: their tolerance."""

    def __init__(self, limit: float) -> None:
        self.limit, self.largest = limit, 0.0
        self.parameters = self.met = self.solved = self.candidates = self.edges = 0

    def add(self, sums: Sums) -> np.ndarray:
        """Count `sums`; returns how far each is off [rows, units]."""
        off = np.abs(sums.error)
        self.parameters += off.size
        self.met += int((off <= self.limit).sum())
        solved = sums.candidates[sums.candidates != NONE]
        self.solved += len(solved)
        self.candidates += int(solved.sum(dtype=np.int64))
        self.edges += int(sums.edges.sum(dtype=np.int64))
        self.largest = max(self.largest, float(off.max(initial=0)))
        return off

    def fit(self, size: float, tolerance: float) -> LayerFit:
        """In units of the target's parameters."""
        count = max(1, self.parameters)
        return LayerFit(self.parameters, self.candidates / max(1, self.solved), self.edges / count, self.met / count,
                        self.largest / size, tolerance)

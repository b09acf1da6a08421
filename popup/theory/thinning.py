"""Goals of which many are too small for an edge: each such is added to the next, so that it is not lost.

Within a tolerance of 0 a parameter needs no edge. But where most are (of 784-500-10 on MNIST nine in ten weights are below 0.01)
what is lost has the same sign wherever inputs are alike, as pixels are, and hidden neurons are off by half of what they are.
Carried to the next, any run of parameters is off by no more than a third of a tolerance together. It is decided from the target
alone: all copies of a neuron then lose the same, which no sum of them amplifies.
"""

from __future__ import annotations

import numpy as np

LOST, LEFT = 1 / 3, 1 / 4  # of the tolerance: what a goal may be without an edge, and what a sum may leave to the next


def thin(goals: np.ndarray, tolerance: float) -> np.ndarray:
    """goals [rows, units] with 0 in the place of those that are small with what those before them lost, which the next takes.
    None is moved by more than two thirds of `tolerance`, and none but such a 0 by more than one third."""
    thinned, lost = np.zeros(goals.shape), np.zeros(len(goals))
    for unit in range(goals.shape[1]):
        wanted = goals[:, unit] + lost
        small = np.abs(wanted) <= LOST * tolerance
        thinned[:, unit], lost = np.where(small, 0, wanted), np.where(small, wanted, 0)
    return thinned

"""Which copies of the last hidden layer the outputs will take, told before any of them is built.

What an output's sums are chosen from is known beforehand: edges, and the multiples of copies. The outputs' layer is small, so it
is drawn twice: of copies that no output takes, most edges of a source lead to them, no sum need then be solved.
"""

from __future__ import annotations

import numpy as np

from popup.theory.copies import Copies
from popup.theory.stages import Stage
from popup.theory.sums import solve


def taken_by(weights: np.ndarray, outputs: Stage, scale: float, unit: np.ndarray, multiple: float, threads: int) -> np.ndarray:
    """bool [rows]: of the copies of each `unit`, as long as all of them are good, those with an edge to some output. The
    constant's, whose multiples are not known yet, are all among them.

    weights: [outputs, rows * taps], 0 off the edges; multiple: of the rows; scale: what a sum of whole weights is there.
    """
    below = Copies(unit, np.full(len(unit), multiple), np.zeros(len(unit)))
    below = below.at_taps(outputs.taps, outputs.inside, outputs.constant // outputs.taps)
    columns = [below.of(number, in_order=True) for number in range(outputs.goals.shape[1])]
    size = outputs.multiple * scale
    chosen, _ = solve(weights, below, columns, np.arange(len(weights)), outputs.goals * size, outputs.tolerance * size, threads)
    return chosen.reshape(len(weights), len(unit), outputs.taps).any((0, 2)) | (unit == outputs.constant // outputs.taps)

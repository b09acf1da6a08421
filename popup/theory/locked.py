"""The law where some edges are locked: those are in every ticket, and nothing is to be chosen of them.

In a partially frozen source (arXiv 2402.14029, of which the abstract was read) a random part of the weights is pruned, which S_ER
does here, and a random part locked. A parameter is then the sum of its locked edges and of a subset of the free ones: the free
have to reach a goal that has moved by what the locked sum to, so there have to be more of them. Of more than MOST_CANDIDATES
free edges the first are tried; a parameter with MOST edges or more, which are not all known here, counts as missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from popup.source.streams import Stream
from popup.theory.measurement import Requirement, draw_candidates
from popup.theory.subset_sum import MOST_CANDIDATES, best_subsets

MOST = 48  # edges of a parameter, locked and free


def measure_locked(p: float, share: float, epsilons: Sequence[float], delta: float, parameters: int,
                   seed: int) -> list[Requirement]:
    """The least candidates, locked and free, and the least copies with which all but a share `delta` of the parameters are met,
    if each edge is locked with probability `share`. Weights and parameters are those of measure_requirements."""
    values, reach, goals = draw_candidates(p, parameters, seed, MOST)
    locked = Stream(seed, "locked", f"law/{p}").uniform(values.size).reshape(values.shape) < share
    sums = np.cumsum(np.where(locked, values, 0), axis=1)
    place = np.argsort(locked, axis=1, kind="stable")[:, :MOST_CANDIDATES]  # of the first free edges, in their order
    free = np.where(np.take_along_axis(locked, place, 1), 0, np.take_along_axis(values, place, 1))
    errors = np.abs(np.stack([goals, *(best_subsets(np.where(place < count, free, 0)[:, :count], goals - sums[:, count - 1]).error
                                       for count in range(1, MOST + 1))]))
    return [_least(p, epsilon, delta, errors > epsilon, reach) for epsilon in epsilons]


def _least(p: float, epsilon: float, delta: float, missed: np.ndarray, reach: np.ndarray) -> Requirement:
    """From `missed`, bool [candidates, parameters], and `reach`, the copies among which a row has so many edges."""
    shares, rows = missed.mean(1), np.arange(len(reach))
    candidates = float(np.argmax(shares <= delta)) if (shares <= delta).any() else inf
    for copies in range(1, int(reach[np.isfinite(reach)].max()) + 1):
        edges = (reach <= copies).sum(1) - 1
        if np.where(edges < reach.shape[1] - 1, missed[edges, rows], True).mean() <= delta:
            return Requirement(p, epsilon, candidates, copies, delta)
    return Requirement(p, epsilon, candidates, inf, delta)

"""The law as measured: how many candidates, and so how many copies of a neuron, a parameter needs for its tolerance.

`python run.py law` measures the constants anew: targets and weights uniform in [-1, 1], 95% of the parameters within the
tolerance (docs/existence.md).
"""

from __future__ import annotations

from math import log2

from scipy.special import bdtrc

from popup.errors import UsageError

SHARE = 0.95                # of the parameters that are to meet their tolerance
OFFSET, SLOPE = 4.8, 0.97   # candidates = OFFSET + SLOPE log2(1 / tolerance) (measured, for tolerances of 1e-1 to 1e-4)
MOST_COPIES = 1e9           # of one neuron, beyond which none is counted
LEAST = 8                   # candidates below which a target of 1 is out of reach more often than not


def candidates_needed(tolerance: float) -> int:
    """The number of candidates with which SHARE of the parameters in [-1, 1] are met within `tolerance`."""
    return max(LEAST, round(OFFSET + SLOPE * log2(1 / tolerance)))


def copies_needed(candidates: int, p: float) -> int:
    """q: the copies of a neuron of which at least `candidates` have an edge (of probability p) to another neuron, in SHARE of
    the cases."""
    if p == 1:
        return candidates
    if candidates / p > MOST_COPIES:
        raise UsageError(f"er_p is {p:g}: a neuron would need some {candidates / p:.2g} copies; raise it")
    low, high = candidates - 1, candidates  # low is never enough
    while bdtrc(candidates - 1, high, p) < SHARE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bdtrc(candidates - 1, middle, p) >= SHARE else (middle, high)
    return high

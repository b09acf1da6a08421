"""The law as measured: how many candidates, and so how many copies of a neuron, a parameter needs for its tolerance.

`python run.py law` measures the line anew: targets and weights uniform in [-1, 1], 95% of the parameters within the
tolerance (docs/existence.md). Few candidates make fine sums only of what they reach: for 95% of a layer's largest parameter
they have to be more, the more the larger it is (measured at a tolerance of 0.1, tests/theory/test_measurement.py).
"""

from __future__ import annotations

from math import ceil, log2

from scipy.special import bdtrc

from popup.errors import UsageError

SHARE = 0.95                # of the parameters that are to meet their tolerance
OFFSET, SLOPE = 4.8, 0.97   # candidates = OFFSET + SLOPE log2(1 / tolerance) (measured, for tolerances of 1e-1 to 1e-4)
MOST_COPIES = 1e9           # of one neuron, beyond which none is counted
FINEST = 2.0**-1000         # tolerance that is told apart from 0
LEAST = {                   # weights, whether in products: (a, b) of at least a + b |parameter| candidates (measured)
    ("uniform", False): (5, 6),
    ("uniform", True): (7, 6),  # products are small more often
    ("kaiming_normal", False): (6, 6),
    ("kaiming_normal", True): (7, 8),
}


def candidates_needed(tolerance: float, largest: float = 1.0, products: bool = False, weights: str = "uniform") -> int:
    """The number of candidates with which SHARE of the parameters in [-largest, largest] are met within `tolerance`, those at
    either end included; all in units of a uniform weight of that deviation, and of `products` of their deviation over it."""
    least, more = LEAST[weights, products]
    return max(ceil(least + more * largest), round(OFFSET - SLOPE * log2(max(tolerance, FINEST))))


def copies_needed(candidates: int, p: float) -> int:
    """q: the copies of a neuron of which at least `candidates` have an edge (of probability p) to another neuron, in SHARE of
    the cases."""
    if candidates / p > MOST_COPIES:
        raise too_sparse(candidates / p, p)
    return trials_needed(candidates, p)


def too_sparse(copies: float, p: float) -> UsageError:
    return UsageError(f"er_p is {p:g}: a neuron would need some {copies:.2g} copies; raise it")


def trials_needed(successes: int, p: float, share: float = SHARE) -> int:
    """The number of trials of which at least `successes`, of probability p each, succeed in `share` of the cases."""
    if p == 1:
        return successes
    low, high = successes - 1, successes  # low is never enough
    while bdtrc(successes - 1, high, p) < share:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bdtrc(successes - 1, middle, p) >= share else (middle, high)
    return high

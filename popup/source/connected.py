"""S_ER with a minimum of connections: in each layer every output and every input has at least one edge, at the same density.

What the paper's authors do, by their code ("flow preservation", ER_DST in github.com/RelationalML/sparse_to_sparse; the words of
their text were not at hand): after the draw a unit without an edge gets one at a random place, outputs first, then inputs, and
nothing is taken away elsewhere. Here the edges are the entries whose word is below a bound, as ever, and of each output and each
input the entry with the smallest word. The place is as random, one seed's edges at a smaller p are still among those at a larger
one (but for mask exact where it has hardly enough), and all is a function of the layer's one stream. The bound is lowered so that
the expected number of edges is p m_l again; with mask exact there are as many as ever. Their code adds its edges on top, and
mostly none for inputs of convolutions, of which it writes to a copy.

Of a convolution a unit is a channel. Of one with groups an input is taken by its place in the group, so that it may have no edge
where the same place of another group has one (of a depthwise one each has). Of a transposed one with groups that would be so of
outputs, and attach refuses it. It is done layer by layer, in residual networks too.
Biases are no connections. A layer whose p_l is too small for all of its units is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

import numpy as np

from popup.errors import UsageError
from popup.source.masks import share
from popup.source.streams import Stream

WORDS = 1 << 32


def bernoulli(seed: int, name: str, shape: tuple[int, ...], p: float) -> np.ndarray:
    """Each unit connected, p m_l edges on average. Returns the flat indices of the edges, ascending, int64."""
    bound = _bound(name, shape, p)
    words = Stream(seed, "edges", name).words32(prod(shape))
    return np.flatnonzero((words < np.uint64(bound)) | _smallest(words, shape))


def exact(seed: int, name: str, shape: tuple[int, ...], p: float) -> np.ndarray:
    """Each unit connected, just floor(p m_l + 1/2) edges: those that connect, then the smallest words. Where these are too few
    for the smallest word of each unit, those that connect are as few as can be, so that it is no seed's luck whether there are
    enough; they need not be among the edges of a larger p then."""
    words, wanted = Stream(seed, "edges", name).words32(prod(shape)), share(p, prod(shape))
    if wanted < max(shape[:2]):
        raise _too_few(name, shape, p, max(shape[:2]))
    connecting = _smallest(words, shape)
    if wanted < np.count_nonzero(connecting):
        connecting = _fewest(words, shape)
    order = np.lexsort((words, ~connecting))  # stable, those that connect first
    return np.sort(order[:wanted])


CONNECTED: dict[str, Callable[[int, str, tuple[int, ...], float], np.ndarray]] = {"bernoulli": bernoulli, "exact": exact}


def _smallest(words: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The entries with the smallest word of an output or of an input, bool [entries]; ties go to the lower index."""
    outputs, inputs, kernel = shape[0], shape[1], prod(shape[2:])
    chosen = np.zeros(len(words), dtype=bool)
    chosen[np.arange(outputs) * (inputs * kernel) + words.reshape(outputs, -1).argmin(1)] = True
    place = words.reshape(outputs, inputs, kernel).transpose(1, 0, 2).reshape(inputs, -1).argmin(1)  # in [outputs, kernel]
    chosen[(place // kernel * inputs + np.arange(inputs)) * kernel + place % kernel] = True
    return chosen


def _fewest(words: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """As few entries as connect each output and each input, bool [entries]: by ascending words those between two units of which
    neither has one, as long as there are such; then of each unit that is left the smallest. Ties go to the lower index."""
    outputs, inputs, kernel = shape[0], shape[1], prod(shape[2:])
    keys = words.astype(np.uint64) * np.uint64(len(words)) + np.arange(len(words), dtype=np.uint64)
    best = keys.reshape(outputs, inputs, kernel).min(2)  # of each pair: [outputs, inputs]
    rows, columns, chosen = np.arange(outputs), np.arange(inputs), []
    while len(rows) and len(columns):
        free = best[np.ix_(rows, columns)]
        mine, theirs = free.argmin(1), free.argmin(0)
        met = np.flatnonzero(theirs[mine] == np.arange(len(rows)))  # each the other's smallest: nothing smaller can come between
        chosen.append(free[met, mine[met]])
        rows, columns = np.delete(rows, met), np.delete(columns, mine[met])
    left = best[rows].min(1) if len(rows) else best[:, columns].min(0)
    found = np.zeros(len(words), dtype=bool)
    found[(np.concatenate([*chosen, left]) % np.uint64(len(words))).astype(np.int64)] = True
    return found


def expected_edges(shape: tuple[int, ...], bound: int) -> float:
    """How many edges there are on average with a `bound` of 2**32: the entries below it, one for each output and each input that
    has none below it, less those that are one for both.

    An output of r entries has none with probability q^r, q = 1 - bound / 2**32. An output and an input that share K of their
    r + c entries have both none with probability q^(r + c - K), and then one smallest word with probability K / (r + c - K).
    """
    entries, row, column = prod(shape), prod(shape[1:]), shape[0] * prod(shape[2:])
    both, q = row + column - prod(shape[2:]), (WORDS - bound) / WORDS
    alone = entries / row * _power(q, row) + entries / column * _power(q, column)
    return entries * (1 - q) + alone - entries / both * _power(q, both)


def _power(base: float, exponent: int) -> float:
    """base ** exponent by products alone, which are the same on every platform, as a library's powers need not be."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base, exponent = base * base, exponent >> 1
    return result


def _bound(name: str, shape: tuple[int, ...], p: float) -> int:
    """The largest bound with at most p m_l edges on average, by bisection; a UsageError if there is none."""
    low, high, wanted = 0, WORDS, p * prod(shape)
    if share(p, WORDS) == WORDS:  # all, which a density that was spread may miss by its last digit
        return WORDS
    if expected_edges(shape, low) > wanted:
        raise _too_few(name, shape, p, expected_edges(shape, low))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if expected_edges(shape, middle) <= wanted else (low, middle - 1)
    return low


def _too_few(name: str, shape: tuple[int, ...], p: float, needed: float) -> UsageError:
    return UsageError(f"p_l of {name} is {p:.4g}, which is {p * prod(shape):.0f} of its {prod(shape)} weights, and to connect "
                      f"each of its {shape[0]} outputs and {shape[1]} inputs takes {ceil(needed)}: raise er_p, take another "
                      "density, or leave connected out")

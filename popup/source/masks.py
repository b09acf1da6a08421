"""S_ER, the ER mask: which entries of a layer are edges, drawn once from the layer's own stream, or a mask of one's own.

Both kinds of draw compare the same raw words with a bound that grows with p_l. So for one seed the edges at a smaller
density are among those at a larger one: sources of different p are nested, and their comparison is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch

from popup.errors import UsageError, check_name
from popup.source.layers import Layer
from popup.source.streams import Stream

CHUNK = 1 << 18  # entries drawn at a time, which stay in the cache; even, so that chunks never split a 64-bit word


def share(fraction: float, count: int) -> int:
    """floor(fraction * count + 1/2), where `fraction` is the decimal number that its repr shows.

    The float product is off by one at some halves (0.29 * 50 is 14.499999999999998).
    """
    return int(Fraction(repr(float(fraction))) * count + Fraction(1, 2))


def bernoulli(seed: int, name: str, entries: int, p: float) -> np.ndarray:
    """Each entry is an edge with probability p (to 2**-32), independently: its 32-bit word is below p 2**32.

    Returns the flat indices of the edges, ascending, int64.
    """
    return words_below(Stream(seed, "edges", name), entries, p)


def words_below(stream: Stream, entries: int, p: float) -> np.ndarray:
    """Which of the next so many 32-bit words are below p 2**32, ascending, int64."""
    bound = np.uint64(share(p, 1 << 32))
    pieces = [np.flatnonzero(stream.words32(min(CHUNK, entries - start)) < bound) + start
              for start in range(0, entries, CHUNK)]
    return np.concatenate(pieces)


def exact(seed: int, name: str, entries: int, p: float) -> np.ndarray:
    """Exactly floor(p m_l + 1/2) edges, all sets of that size equally likely: the entries of the smallest words.

    Returns the flat indices of the edges, ascending, int64.
    """
    stream = Stream(seed, "edges", name)
    words = stream.words32(entries)
    return np.sort(np.argsort(words, kind="stable")[:share(p, entries)])


MASKS: dict[str, Callable[[int, str, int, float], np.ndarray]] = {"bernoulli": bernoulli, "exact": exact}
COMPUTED = ("snip", "synflow")  # not drawn, but computed from the network: popup/source/saliency.py


def given_edges(layers: Sequence[Layer], masks: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, np.ndarray]:
    """The flat indices of the edges, ascending, int64, by layer name, of masks: bool, of each layer's shape."""
    if not isinstance(masks, Mapping):
        raise UsageError(f"masks are a {type(masks).__name__}: pass a mapping from each layer's name to its mask")
    for name in masks:
        check_name("layer in the masks", name, [layer.name for layer in layers])
    edges = {}
    for layer in layers:
        if layer.name not in masks:
            raise UsageError(f"there is no mask for {layer.name!r}: give one for every layer ({len(layers)} here)")
        mask = masks[layer.name]
        mask = mask.detach().to_dense().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
        if mask.dtype != bool or mask.shape != layer.shape:
            raise UsageError(f"the mask of {layer.name} is {mask.dtype} {list(mask.shape)}: it must be bool "
                             f"{list(layer.shape)}")
        edges[layer.name] = np.flatnonzero(mask)
    if not any(map(len, edges.values())):
        raise UsageError(f"the masks of all {len(layers)} layers are empty: a source needs edges")
    return edges

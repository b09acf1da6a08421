"""Magnitude pruning at a ticket's counts: of a dense network that was trained, the largest weights, to be fine-tuned.

What everybody compares a sparse network with (Han et al., NeurIPS 2015; as strong as later criteria in Gale, Elsen and Hooker,
arXiv 1902.09574). It is pruned at once. Fine-tuning goes through the whole schedule of rates again, from the highest (learning
rate rewinding: Renda, Frankle and Carbin, ICLR 2020), for --finetune-epochs; it begins with the dense network's biases and norms.
"""

from __future__ import annotations

import numpy as np
import torch

from popup.lab.runs.subnetwork import Subnetwork
from popup.search.keys import HIGHEST, Keys
from popup.search.select import top
from popup.source.layer_source import LayerSource


def layerwise(start: Subnetwork) -> list[LayerSource]:
    """In each layer the largest weights of the dense network, as many as the ticket keeps there; ties go to the lower index."""
    weights, counts = _weights(start), [int(np.count_nonzero(codes)) for codes in start.codes]
    return _pruned(start, weights, [_largest(_keys(weight), count) for weight, count in zip(weights, counts, strict=True)])


def globally(start: Subnetwork) -> list[LayerSource]:
    """The largest weights of the whole dense network, as many as the ticket keeps in all; at least the largest of each layer."""
    weights = _weights(start)
    keys = [_keys(weight) for weight in weights]
    for layer in keys:
        layer[layer.argmax()] = HIGHEST
    chosen = _largest(np.concatenate(keys), sum(int(np.count_nonzero(codes)) for codes in start.codes))
    return _pruned(start, weights, np.split(chosen, np.cumsum([len(weight) for weight in weights])[:-1]))


def _weights(start: Subnetwork) -> list[np.ndarray]:
    """The dense network's weights of each layer, flat, float32."""
    return [start.dense[drawn.source.spec.name].float().flatten().numpy() for drawn in start.sources]


def _keys(weights: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of |w|: the bits of a float32 without its sign."""
    return np.abs(weights).view(np.int32)


def _largest(keys: np.ndarray, count: int) -> np.ndarray:
    return top(Keys(torch.from_numpy(keys)), count).numpy()


def _pruned(start: Subnetwork, weights: list[np.ndarray], chosen: list[np.ndarray]) -> list[LayerSource]:
    return [LayerSource(drawn.source.spec, 1.0, np.flatnonzero(mask), weight[mask])
            for drawn, weight, mask in zip(start.sources, weights, chosen, strict=True)]

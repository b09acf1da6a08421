"""SHA-256 of what must not change: the regenerated edges, their weights, the mask, and every frozen tensor."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

from popup.search.network import search_of, unwrapped


def hash_array(array: np.ndarray) -> str:
    """SHA-256, as hex, of the array's little-endian bytes in C order."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.view(np.uint8).reshape(-1).data if little.size else b"").hexdigest()


class RunningHash:
    """`hash_array` of arrays of one type end to end, without their sum in memory."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, array: np.ndarray) -> None:
        """The next of them."""
        if array.size:
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            self._sha.update(little.view(np.uint8).reshape(-1).data)

    def hex(self) -> str:
        return self._sha.hexdigest()


def hash_tensor(tensor: torch.Tensor) -> str:
    """SHA-256, as hex, of the tensor's bytes; of bfloat16 and float8, which numpy lacks, of their bit patterns."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    small = tensor.dtype.is_floating_point and (tensor.dtype is torch.bfloat16 or tensor.itemsize == 1)
    return hash_array((tensor.view(torch.int16 if tensor.itemsize == 2 else torch.uint8) if small else tensor).numpy())


def frozen_hashes(net: nn.Module) -> dict[str, str]:
    """The hash of every frozen tensor of an attached network: edges and weights of each layer, all other parameters."""
    search, net = search_of(net), unwrapped(net)
    learned = {id(score) for score in search.scores()}
    hashes = {name: hash_tensor(parameter) for name, parameter in net.named_parameters() if id(parameter) not in learned}
    for layer in search.layers:
        hashes[f"{layer.spec.name}/edges"] = hash_tensor(layer.gaps)
        hashes[f"{layer.spec.name}/weights"] = hash_tensor(layer.values)  # the first draw: redraws are drawn from the seed
    return hashes

"""The weights of the dense network after its training: weights.safetensors in its run's directory, a sealed file, so that one
training serves every control that prunes it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from popup.files import write_atomically
from popup.lab.training.stop import RunFailed
from popup.ticket.sealed import SealedError, Tensors, apart, seal, unseal

KIND, FORMAT = "weights", 1


def write_weights(path: Path, net: nn.Module) -> None:
    """Write the network's parameters and buffers."""
    tensors = {name: tensor for name, tensor in net.state_dict().items() if isinstance(tensor, torch.Tensor)}
    write_atomically(path, seal(KIND, FORMAT, {}, apart(tensors)))


def read_weights(path: Path, net: nn.Module) -> Tensors:
    """What was written, for the plain network `net`. A RunFailed if it is gone, damaged or of another network."""
    remedy = "remove that directory, then plan or start the grid again, which trains the dense network anew"
    if not path.exists():
        raise RunFailed(f"the weights of its dense network are not there, {path} (popup wrote none before it had controls that "
                        f"are pruned by magnitude): {remedy}")
    try:
        tensors = unseal(path, KIND, (FORMAT,))[1]
    except SealedError as error:
        raise RunFailed(f"{error}: {remedy}") from None
    wanted = {name: tensor.shape for name, tensor in net.state_dict().items() if isinstance(tensor, torch.Tensor)}
    if wanted != {name: tensor.shape for name, tensor in tensors.items()}:
        raise RunFailed(f"{path} holds the weights of another network than this one: {remedy}")
    return tensors

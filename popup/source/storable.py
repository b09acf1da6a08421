"""Which tensors of a network the file of a ticket can hold: told before a search of hours, not when its ticket is written."""

from __future__ import annotations

from functools import cache

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from popup.errors import UsageError


def refuse_unstorable(net: nn.Module) -> None:
    """A UsageError for a parameter, or a buffer or what else is in the state, that no file of a ticket can hold; and for one that
    has another name in the state."""
    parameters, state = dict(net.named_parameters(remove_duplicate=False)), net.state_dict()
    buffers = {name: value for name, value in state.items() if name not in parameters}
    if hidden := next((name for name in parameters if name not in state), None):
        raise UsageError(f"{hidden} is not in the network's state_dict by that name (is a part wrapped, as for activation "
                         "checkpoints, or does a hook rename it?), and tickets know tensors by one: attach the network without "
                         "that; torch.utils.checkpoint.checkpoint within a forward renames nothing")
    for name, tensor in (parameters | buffers).items():
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(f"{name} of the network's state is a {type(tensor).__name__}, which the file of a ticket cannot "
                             "hold: let get_extra_state return a tensor, or leave it out")
        if not is_lazy(tensor) and (words := _unstorable(tensor)):
            out = ", or take it out of the state by register_buffer(..., persistent=False)" if name in buffers else ""
            raise UsageError(f"{name} {words}, which the file of a ticket cannot hold: give it as a dense tensor of a usual "
                             f"type, such as {_usual(tensor)}{out}")


def _unstorable(tensor: torch.Tensor) -> str | None:
    """What of it safetensors has no room for; None: it can be stored."""
    if tensor.layout is not torch.strided:
        return f"is {tensor.layout}"
    if tensor.is_nested:
        return "is a nested tensor"
    if is_traceable_wrapper_subclass(tensor):
        return f"is a {type(tensor).__name__}, a tensor made of others"
    return None if _is_stored(tensor.dtype) else f"is of {tensor.dtype}"


def _usual(tensor: torch.Tensor) -> str:
    if not tensor.dtype.is_complex:
        return "torch.float32"
    return "torch.complex64" if _is_stored(torch.complex64) else "torch.float32 by torch.view_as_real"  # safetensors 0.5


@cache
def _is_stored(dtype: torch.dtype) -> bool:
    """Whether safetensors writes a tensor of that type and reads it as it was: tried, since each version has more of them."""
    try:
        tried = torch.zeros(2, 2, dtype=dtype, device="cpu")
        found = safetensors.torch.load(safetensors.torch.save({"tried": tried}))["tried"]
    except (SafetensorError, KeyError, TypeError, RuntimeError):
        return False
    return found.dtype is dtype and found.shape == tried.shape

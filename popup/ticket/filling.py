"""Writing a network's tensors in place, and making those of one that was built without memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from popup.errors import UsageError
from popup.source.layers import locate


def check_memory(net: nn.Module, given: Mapping[str, torch.Tensor], replaced: frozenset[str]) -> None:
    """A UsageError for a tensor of `net` that is without memory (on "meta") and neither `given` nor in a layer that is
    `replaced`."""
    for name, tensor in (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)):
        if tensor.is_meta and name not in given and name not in replaced:
            raise UsageError(f"{name} of {type(net).__name__} has no data (it is on 'meta'), and no ticket holds it: build the "
                             "network on a device")


@torch.no_grad()
def fill(net: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Write `state` to the parameters and buffers of `net`, in their types; what is on "meta" is made, on the CPU.

    Not by load_state_dict: some modules (torchvision's MNASNet) change themselves in it.
    """
    for name, tensor in net.state_dict().items():
        if name not in state:
            continue
        if not tensor.is_meta:
            tensor.copy_(state[name])
            continue
        module, attribute = locate(net, name)
        made = state[name].to("cpu", tensor.dtype, copy=True)
        if attribute in module._parameters:
            module._parameters[attribute] = nn.Parameter(made, requires_grad=False)
        else:
            module._buffers[attribute] = made

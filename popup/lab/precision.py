"""In which precision a network computes: bf16 autocast where the hardware is fast at it, and channels last for convolutions.

Scores, their gradients and the optimiser stay float32 in any case.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from popup.search.network import is_attached, search_of
from popup.source.layers import find_layers

PRECISIONS = ("auto", "fp32", "bf16")
FAST_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux names them: x86, x86 with tiles, Arm
WORTH_IT = 1_000_000  # weights; below, a step is bound by the calls and casting only adds to them


@dataclass(frozen=True)
class Precision:
    """How to run one network: `bf16` or not, and whether images go in channels last."""

    device: torch.device
    bf16: bool
    channels_last: bool

    @classmethod
    def of(cls, net: nn.Module, wanted: str) -> Precision:
        """The precision `wanted` (one of PRECISIONS) for a network on its device."""
        device = next(net.parameters()).device
        convolutions = any(isinstance(module, nn.Conv2d) for module in net.modules())
        layers = [layer.spec for layer in search_of(net).layers] if is_attached(net) else find_layers(net)
        large = sum(layer.entries for layer in layers) >= WORTH_IT
        bf16 = wanted == "bf16" or (wanted == "auto" and large and fast_bf16(device))
        return cls(device, bf16, convolutions and large)

    @property
    def name(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, c, h, w] in the memory format that the network is fast in; other inputs as they are."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last and images.dim() == 4 else images


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return bool(FAST_FLAGS & set(flags.split()))

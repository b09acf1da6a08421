"""In which precision a network computes: bf16 autocast where the hardware is fast at it, and channels last for convolutions.

Scores, their gradients and the optimiser stay float32 in any case.

That a processor has bf16 instructions does not say that it is faster by them. `auto` takes bf16, for networks whose products
take longer than their calls, on
- GPUs from compute capability 8.0;
- x86 with AMX tiles (flag amx_bf16): measured, a step takes 0.28 to 0.41 of fp32's time;
- AMD with AVX512-BF16: measured, 0.52 to 0.54.
It takes fp32 everywhere else:
- Intel with AVX512-BF16 and no AMX, also where a hypervisor hides the tiles, or oneDNN is told to leave them: measured, bf16
  takes 1.3 to 1.6 times as long;
- older x86, which has to emulate bf16: measured, 4 times as long;
- Arm, with bf16 matrix instructions too: not measured, and oneDNN has its fast kernels there for forward passes first;
- a maker of x86 that is neither of these two, and where there is no /proc/cpuinfo (macOS, Windows): not known.
docs/speed.md has the numbers, and `python run.py bench` measures both on the machine that it runs on.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from popup.search.network import is_attached, search_of
from popup.source.layers import Layer, locate
from popup.source.maskable import kind_of, maskable_entries

PRECISIONS = ("auto", "fp32", "bf16")
CPUINFO = "/proc/cpuinfo"
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # what oneDNN is told to use at most; the first that is set counts
WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}  # such limits, and
WITHOUT_TILES = WITHOUT_BF16 | {"AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX10_2_512"}
WORTH_IT = 1_000_000  # multiply-adds of an example; below, a step is bound by the calls and casting only adds to them
VECTOR = 16           # numbers
PLACES = 64           # at which a convolution uses each weight, as not more is known without images: a map of 8 x 8. On the CPU
                      # alone: a GPU does so small products in the time that a call takes, and none was measured


@dataclass(frozen=True)
class Precision:
    """How to run one network: `bf16` or not, and whether images go in channels last."""

    device: torch.device
    bf16: bool
    channels_last: bool

    @classmethod
    def of(cls, net: nn.Module, wanted: str, device: torch.device | None = None) -> Precision:
        """The precision `wanted` (one of PRECISIONS) for a network on its device, or on another `device`."""
        device = device or next(net.parameters()).device
        filters = [_weights(module) for module in net.modules() if isinstance(module, nn.Conv2d)]
        layers = [layer.spec for layer in search_of(net).layers] if is_attached(net) else []
        attached = sum(layer.entries for layer in layers if _counts(net, layer))
        places = PLACES if device.type == "cpu" else 1
        large = attached + maskable_entries(net) + (places - 1) * sum(filters) >= WORTH_IT
        bf16 = wanted == "bf16" or (wanted == "auto" and large and fast_bf16(device))
        fragile = device.type == "cpu" and any(isinstance(module, nn.Conv2d) and _fragile(module) for module in net.modules())
        return cls(device, bf16, bool(filters) and large and not fragile)

    @property
    def dtype(self) -> torch.dtype:
        """The number type of its dense products."""
        return torch.bfloat16 if self.bf16 else torch.float32

    @property
    def name(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Images [n, c, h, w] in the memory format that the network is fast in; other inputs as they are. (`contiguous` would
        leave the strides of images with one channel, by which a convolution tells the format.)"""
        return images.to(memory_format=torch.channels_last) if self.channels_last and images.dim() == 4 else images


def _counts(net: nn.Module, layer: Layer) -> bool:
    """Whether `maskable_entries` has counted the layer when the network was plain, so that its controls have one precision with
    it: no bias, and no table."""
    kind = kind_of(locate(net, layer.name)[0])
    return layer.weight is None and kind is not None and not kind.asked


def _weights(module: nn.Conv2d) -> int:
    """Of its filters, which an attached module does not hold."""
    return module.out_channels * module.in_channels // module.groups * prod(module.kernel_size)


def _fragile(module: nn.Conv2d) -> bool:
    """Whether its gradient in channels last was seen to end the process (torch 2.14.1, an AMD EPYC that shows AVX2 alone); with
    fewer channels than a vector of any processor holds it is not tried."""
    return max(module.kernel_size) == 1 and max(module.stride) > 1 and module.in_channels // module.groups < VECTOR


def fast_bf16(device: torch.device) -> bool:
    """Whether the device is known to train faster in bf16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    return processor_is_fast(text, next((os.environ[name] for name in LIMITS if os.environ.get(name)), ""))


def processor_is_fast(cpuinfo: str, limit: str = "") -> bool:
    """Whether the processor that /proc/cpuinfo describes so trains faster in bf16. `limit`: what oneDNN is told to use of it at
    most, in its own words; it heeds no word that it does not know."""
    rows = [line.partition(":") for line in cpuinfo.splitlines()]
    fields = {name.strip(): value for name, _, value in reversed(rows)}  # of the first processor: they are alike
    flags, limit = set(fields.get("flags", "").split()), limit.strip().upper()
    if {"amx_tile", "amx_bf16"} <= flags and limit not in WITHOUT_TILES:
        return True
    made_by_amd = fields.get("vendor_id", "").strip() == "AuthenticAMD"
    return made_by_amd and "avx512_bf16" in flags and limit not in WITHOUT_BF16

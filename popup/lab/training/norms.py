"""Norms while they are trained: batch norms that see the whole batch of all ranks, as one rank would, and plain averages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from popup.errors import UsageError
from popup.lab.training.ranks import Ranks

FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)  # which `synchronised` stands in for


class Average(torch.autograd.Function):
    """The mean of a tensor over all ranks. The gradient of the ranks' summed losses is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return _average(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _average(gradient)


def _average(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()


class SynchronisedNorm(_BatchNorm):
    """Batch norm with the mean and variance over all ranks' images, for the CPU, which torch's SyncBatchNorm leaves out.

    Every rank has as many images as the others.
    """

    def _check_input_dim(self, inputs: torch.Tensor) -> None:
        """Any input [n, channels, ...] will do."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(inputs)
        axes, shape = [axis for axis in range(inputs.dim()) if axis != 1], (1, -1, *[1] * (inputs.dim() - 2))
        pixels = inputs.float()
        mean = Average.apply(pixels.mean(axes))                                 # [channels]
        centred = pixels - mean.view(shape)
        variance = Average.apply(centred.square().mean(axes))                   # [channels]
        self._remember(mean.detach(), variance.detach(), inputs.numel() // inputs.shape[1] * dist.get_world_size())
        outputs = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            outputs = outputs * self.weight.view(shape) + self.bias.view(shape)
        return outputs.to(inputs.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Move the running statistics: by the momentum, or without one to the plain average so far."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


def check_norms(net: nn.Module) -> None:
    """A UsageError if a batch norm does more than torch's, as timm's with an activation: synchronised it would do less."""
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm) and type(module).forward not in FORWARDS:
            raise UsageError(f"{name} ({type(module).__name__}) is a batch norm with a forward of its own, which several ranks "
                             "cannot synchronise: give --no-sync-norm (sync_norm=False)")


@contextlib.contextmanager
def synchronised(net: nn.Module, ranks: Ranks, wanted: bool) -> Iterator[None]:
    """Within the block the batch norms of `net` are synchronised over the ranks, if there are several and it is `wanted`."""
    if ranks.count > 1 and wanted:
        check_norms(net)
    norms = [(module, type(module), vars(module).get("process_group")) for module in net.modules()
             if isinstance(module, _BatchNorm)] if ranks.count > 1 and wanted else []
    try:
        for norm, _, _ in norms:
            norm.__class__ = nn.SyncBatchNorm if next(net.parameters()).is_cuda else SynchronisedNorm
            vars(norm)["process_group"] = None  # SyncBatchNorm's word for all ranks
        yield
    finally:
        for norm, kind, group in norms:
            norm.__class__ = kind
            vars(norm).pop("process_group", None)
            if issubclass(kind, nn.SyncBatchNorm):  # the user's own, which has one
                vars(norm)["process_group"] = group


def running(net: nn.Module) -> list[Any]:
    """The norms with running statistics that can begin anew; others (torchvision's FrozenBatchNorm2d) keep what they have."""
    return [module for module in net.modules() if getattr(module, "running_mean", None) is not None
            and hasattr(module, "reset_running_stats") and hasattr(module, "momentum")]


@contextlib.contextmanager
def averaging(norms: Sequence[Any]) -> Iterator[Callable[[int], None]]:
    """Within the block running statistics begin anew, and are plain averages over the batches; what is yielded is called with
    the number of each, from 1 on. Then momenta are as they were, and statistics too if the block did not come to its end: an
    average over half of the data is none."""
    def begin(number: int) -> None:
        for norm in norms:
            if not isinstance(norm, _BatchNorm):  # instance norms count no batches, and take no momentum for one of 0
                norm.momentum = 1 / number

    momenta = [norm.momentum for norm in norms]
    held = [(norm, name, buffer, buffer.clone()) for norm in norms for name, buffer in norm._buffers.items()
            if buffer is not None]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a cumulative average
        yield begin
    except BaseException:
        for norm, name, buffer, before in held:
            norm._buffers[name] = buffer.copy_(before)  # a forward may have put another in its place
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

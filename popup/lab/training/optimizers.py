"""What moves the scores: torch's own optimisers, and steps by the sign of the momentum. A new one is a line of OPTIMIZERS.

The momentum of an edge whose unit has died would go down for ever, and in float32 it does not come to 0: 0.9 times the fourth
smallest number rounds to the fourth again. Numbers below the smallest normal one take a processor some hundred cycles each, so
they are dropped from the state now and then. The processor could be told to take them for 0, but each of torch's threads takes
that from the thread that starts it and can never be told otherwise, and the mode would be the caller's too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import nn

from popup.lab.config import TrainingSettings

SMALLEST = torch.finfo(torch.float32).smallest_normal
SETTLE_EVERY = 32  # steps; a pass over the state takes half of a step of the optimiser


class SignMomentum(torch.optim.Optimizer):
    """Every parameter moves by lr against the sign of the running mean of its gradients (Signum of Bernstein et al., ICML
    2018, arXiv 1802.04434, alg. 2): m <- b m + (1 - b) g, x <- x - lr (sign(m) + w x), with the weight decay w."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch has two types of it, for a closure and none
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in (parameter for parameter in group["params"] if parameter.grad is not None):
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(mean.sign(), alpha=group["lr"])


@singledispatch
@torch.no_grad()
def settle(optimizer: torch.optim.Optimizer) -> None:
    """Make 0 what of the state has become smaller than any normal number. No parameter but one that is as small itself is moved
    otherwise by that."""
    for state in optimizer.state.values():
        for tensor in filter(torch.is_tensor, state.values()):  # without momentum it is None
            torch.hardshrink(tensor, SMALLEST, out=tensor)


@settle.register
@torch.no_grad()
def _(optimizer: SignMomentum) -> None:
    """Its steps are as long however small the momentum is: that is made larger, so that it stays normal up to the next time. With
    a momentum of 0.5 and less it comes to 0 by itself."""
    for group in optimizer.param_groups:
        held = SMALLEST / group["momentum"]**SETTLE_EVERY if group["momentum"] > 0.5 else 0.0
        for parameter in group["params"] if held else ():
            for mean in optimizer.state[parameter].values():
                small = (mean.abs() < SMALLEST) & (mean != 0)
                mean.copy_(torch.where(small, mean.sign() * held, mean))


class FusedSGD(torch.optim.SGD):
    """torch's SGD with momentum, its fused kernel called at once: of a small network's step torch's own way to it, which looks
    at what may have changed since the last one, takes twice as long as the kernel."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch has two types of it, for a closure and none
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            momenta = [self._momentum(parameter) for parameter in parameters] if group["momentum"] else []
            if parameters:
                torch._fused_sgd_(parameters, [parameter.grad for parameter in parameters], momenta, lr=group["lr"],
                                  momentum=group["momentum"], weight_decay=group["weight_decay"], dampening=0.0,
                                  nesterov=False, maximize=False, is_first_step=False)

    vars(step)["hooked"] = True  # torch's mark of a step that it need not wrap, as it does to record each in a profile

    def _momentum(self, parameter: nn.Parameter) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def sgd(parameters: list[nn.Parameter], settings: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """SGD with momentum; of controls' weights too."""
    kind = FusedSGD if _fused(parameters) else torch.optim.SGD
    return kind(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=_fused(parameters))


def adam(parameters: list[nn.Parameter], settings: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """Adam with the momentum as its first beta and a decoupled weight decay (AdamW)."""
    return torch.optim.AdamW(parameters, lr=lr, betas=(settings.momentum, 0.999), weight_decay=settings.weight_decay,
                             fused=_fused(parameters))


def sign(parameters: list[nn.Parameter], settings: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """The sign of the momentum."""
    return SignMomentum(parameters, lr, settings.momentum, settings.weight_decay)


def _fused(parameters: list[nn.Parameter]) -> bool | None:
    return True if parameters[0].device.type in ("cpu", "cuda") else None


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], TrainingSettings, float], torch.optim.Optimizer]] = {
    "sgd": sgd, "adam": adam, "sign": sign}


def optimizer_of(scores: list[nn.Parameter], settings: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """The optimiser of the scores that the settings name, at the rate `lr`."""
    return OPTIMIZERS[settings.optimizer](scores, settings, lr)

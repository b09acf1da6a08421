"""What attach is given in the place of what the seed draws: densities by layer, masks, the network's own weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.source.layers import Layer, locate
from popup.source.recipe import GIVEN


def plain_number(number: Any) -> Any:
    """A number of numpy as Python's."""
    return number.item() if isinstance(number, np.generic) else number


def as_patterns(what: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """One pattern or several as a tuple; a UsageError for anything else."""
    patterns = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else None
    if patterns is None or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise UsageError(f"{what} is {given!r:.80}: pass names of modules or parameters, or patterns, as ('lm_head', '*.head')")
    return patterns


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping's numbers of numpy as Python's."""
    return {name: plain_number(value) for name, value in values.items()}


def check_alone(name: str, given: object, kind: type, alone: bool) -> None:
    """A UsageError unless what is `given` is of its dataclass, and none of its fields is a keyword beside it."""
    if not isinstance(given, kind):
        raise UsageError(f"{name} is {given!r:.80}: pass popup.{kind.__name__}(...), or its fields as keywords")
    if not alone:
        raise UsageError(f"{name} is given beside keywords that are fields of {kind.__name__}: pass these as fields of `{name}`")


def check_given(er_p: float | None, density: str | Mapping[str, float], mask: str, masks: Mapping[str, Any] | None) -> None:
    """A UsageError unless densities come from one of: er_p with a density's name, a mapping, masks."""
    if (mask == GIVEN) != (masks is not None) or (mask == GIVEN and (er_p is not None or density != "uniform")):
        raise UsageError(f"mask is {mask!r}, er_p is {er_p!r} and there are {'no ' if masks is None else ''}masks: pass "
                         "mask='given' with masks and without er_p and density, which are what the masks have")
    if mask != GIVEN and (er_p is None) != isinstance(density, Mapping):
        raise UsageError(f"er_p is {er_p!r} and density is {density!r}: pass er_p with a density's name, "
                         "or a mapping from layer name to p_l alone")


def own_weights(net: nn.Module, layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """The weights that `net` has now in its `layers`, float32 [entries], by their names."""
    found = {}
    for layer in layers:
        module, attribute = locate(net, layer.name)
        weight = getattr(module, attribute).detach()
        if weight.is_meta:
            raise UsageError(f"weights are 'given', and {layer.name} is on the device 'meta', where it has no values: give the "
                             "network its weights before attaching")
        if not weight.isfinite().all():
            raise UsageError(f"{layer.name} has weights that are not finite: give it others before attaching")
        if not torch.equal(weight.float().to(weight.dtype), weight):
            raise UsageError(f"{layer.name} has weights of {weight.dtype} that are none of float32, in which tickets hold them: "
                             "round them by .float() before attaching")
        found[layer.name] = weight.float().cpu().numpy().reshape(-1)
    return found

"""What attach is given in the place of what the seed draws: densities by layer, masks, the network's own weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from popup.errors import UsageError
from popup.source.layers import find_layers, locate
from popup.source.recipe import GIVEN


def plain_number(number: object) -> object:
    """A number of numpy as Python's."""
    return number.item() if isinstance(number, np.generic) else number


def numbers(values: Mapping[str, object]) -> dict[str, object]:
    """A mapping's numbers of numpy as Python's."""
    return {name: plain_number(value) for name, value in values.items()}


def check_given(er_p: float | None, density: str | Mapping[str, float], mask: str, masks: Mapping | None) -> None:
    """A UsageError unless densities come from one of: er_p with a density's name, a mapping, masks."""
    if (mask == GIVEN) != (masks is not None) or (mask == GIVEN and (er_p is not None or density != "uniform")):
        raise UsageError(f"mask is {mask!r}, er_p is {er_p!r} and there are {'no ' if masks is None else ''}masks: pass "
                         "mask='given' with masks and without er_p and density, which are what the masks have")
    if mask != GIVEN and (er_p is None) != isinstance(density, Mapping):
        raise UsageError(f"er_p is {er_p!r} and density is {density!r}: pass er_p with a density's name, "
                         "or a mapping from layer name to p_l alone")


def own_weights(net: nn.Module, biases: bool) -> dict[str, np.ndarray]:
    """The weights (and biases) that `net` has now, float32 [entries], by layer name."""
    found = {}
    for layer in find_layers(net, biases):
        module, attribute = locate(net, layer.name)
        weight = getattr(module, attribute).detach()
        if weight.is_meta:
            raise UsageError(f"weights are 'given', and {layer.name} is on the device 'meta', where it has no values: give the "
                             "network its weights before attaching")
        if not weight.isfinite().all():
            raise UsageError(f"{layer.name} has weights that are not finite: give it others before attaching")
        found[layer.name] = weight.float().cpu().numpy().reshape(-1)
    return found

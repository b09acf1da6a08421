"""The error budget: how near each parameter of layer l has to be for the output to be within epsilon.

Let every parameter of layer l be off by at most eps_l, and |x_l - x'_l| <= e_l in each coordinate. ReLU is 1-Lipschitz, so

    e_l <= eps_l (1 + N_{l-1}) + ||W_l||_inf e_{l-1},      e_0 = 0,

with N_l = sup of the 1-norm of x_l over the domain. Giving each layer a share epsilon / L of the output's error,

    eps_l = (epsilon / L) / max((1 + N_{l-1}) prod_{k > l} (||W_k||_inf + epsilon / L), n_{l-1}),

n_{l-1} being the inputs of a neuron, so that no layer's norm grows by more than the epsilon / L that the product has for it.

Leaky ReLU and tanh are 1-Lipschitz too. Of a convolution each output is such a neuron, on the taps of its field: N_{l-1} is
a 1-norm over channels and taps, and so is ||W_l||_inf. x_l and e_l are bounded over all places of a map; pooling raises neither.

What is within a smaller epsilon is within epsilon too: where that leaves the parameters more room (the product grows with
epsilon, in a deep target faster than the share), the budget is that of the smaller one.

This is the shape of the proof's budget (its constants are recalled, not read). It takes the copies of a neuron as one
network's neuron; copies have errors of their own, which the weights of a subset (whose absolute values sum to more than
|w|) may amplify: construction.py bounds that from the edges it has chosen, and it is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from popup.theory.target import Target

BEYOND, FACTOR, SHARES = 16, 0.84, 96  # shares that are looked at: from so many times the largest norm down, by this factor


def suprema(target: Target) -> list[np.ndarray]:
    """For l = 0 .. L - 1 an upper bound of |x_l| over the domain, for each channel, by interval arithmetic."""
    low, high = (np.full(target.widths[0], end) for end in target.entering)
    bounds = [np.maximum(np.abs(low), np.abs(high))]
    for layer in target.layers[:-1]:
        if layer.padded:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        weight = layer.weight.reshape(*layer.weight.shape[:1], layer.channels, layer.taps)  # [out, in, taps]
        centre, radius = weight.sum(2) @ (low + high) / 2 + layer.bias, np.abs(weight).sum(2) @ (high - low) / 2
        low, high = target.activation(centre - radius), target.activation(centre + radius)
        bounds.append(np.maximum(np.abs(low), np.abs(high)))
    return bounds


def plan_tolerances(target: Target, epsilon: float, norms: Sequence[float] = ()) -> list[float]:
    """eps_l for l = 1 .. L: absolute errors allowed to the parameters of the target's layers. `norms`: what a layer makes of
    an error below it at most, where that is more than ||W_l||_inf."""
    most = np.array(norms or [np.abs(layer.weight).sum(1).max() for layer in target.layers])
    sizes = np.array([1 + layer.taps * bound.sum() for layer, bound in zip(target.layers, suprema(target), strict=True)])
    sizes[0] += (sizes[0] - 1) * target.activation.slope * (len(target.branches) - 1)  # of a leaky ReLU both branches count
    inputs = np.array([layer.weight.shape[1] for layer in target.layers])

    def tolerances(share: float) -> np.ndarray:
        after = [float(np.prod(most[place + 1:] + share)) for place in range(len(most))]
        return np.minimum(share / (sizes * after), share / inputs)

    largest = min(epsilon / len(most), BEYOND * max(1.0, float(most.max())))  # with more no layer has more room
    return max((tolerances(largest * FACTOR**step) for step in range(SHARES)), key=np.min).tolist()

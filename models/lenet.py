"""The networks of LeCun et al. (1998) in the form that the pruning literature uses (Han et al., NeurIPS 2015, table 1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .conv import head
from .mlp import mlp
from .widths import scaled


def lenet_300_100(image: Sequence[int], classes: int, widths: Sequence[int] = (300, 100), *,
                  width: float = 1.0) -> nn.Sequential:
    """LeNet-300-100: two hidden layers on the flattened image (267K weights for MNIST)."""
    return mlp(image, classes, widths, width=width)


def lenet5(image: Sequence[int], classes: int, widths: Sequence[int] = (20, 50, 500), *,
           width: float = 1.0) -> nn.Sequential:
    """LeNet-5 as in Caffe: 5x5 convolutions of 20 and 50 channels, each with a max pool, then 500-classes (431K for MNIST).

    The network of 1998 has 60,000 weights; what the pruning literature calls LeNet-5 is this one. `widths`: the two
    convolutions' channels and the hidden layer.
    """
    if len(widths) != 3:
        raise ValueError(f"lenet5 takes 3 widths, of two convolutions and the hidden layer, and there are {len(widths)}")
    first, second, hidden = scaled(widths, width)
    features = nn.Sequential(nn.Conv2d(image[0], first, 5), nn.MaxPool2d(2), nn.Conv2d(first, second, 5), nn.MaxPool2d(2))
    return head(features, image, (hidden,), classes)

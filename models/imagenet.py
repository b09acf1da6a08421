"""The ImageNet ResNets of torchvision: 7x7 stem with stride 2, max pool, shortcuts by 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .vendor import from_torchvision, widen


def _resnet(name: str, image: Sequence[int], classes: int, width: float) -> nn.Module:
    net = from_torchvision(name, image, classes)
    if width != 1.0:
        widen(net, width)
    return net


def imagenet_resnet18(image: Sequence[int], classes: int, *, width: float = 1.0) -> nn.Module:
    """torchvision's resnet18."""
    return _resnet("resnet18", image, classes, width)


def imagenet_resnet34(image: Sequence[int], classes: int, *, width: float = 1.0) -> nn.Module:
    """torchvision's resnet34."""
    return _resnet("resnet34", image, classes, width)


def imagenet_resnet50(image: Sequence[int], classes: int, *, width: float = 1.0) -> nn.Module:
    """torchvision's resnet50 (stride in the 3x3 convolutions of its bottlenecks)."""
    return _resnet("resnet50", image, classes, width)


def imagenet_resnet101(image: Sequence[int], classes: int, *, width: float = 1.0) -> nn.Module:
    """torchvision's resnet101."""
    return _resnet("resnet101", image, classes, width)


def wide_resnet50(image: Sequence[int], classes: int, *, width: float = 1.0) -> nn.Module:
    """Wide ResNet-50, torchvision's wide_resnet50_2: bottlenecks twice as wide inside."""
    return _resnet("wide_resnet50_2", image, classes, width)

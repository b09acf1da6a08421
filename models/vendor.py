"""Networks of torchvision and timm for any image and number of classes. Both libraries are imported when asked for."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from types import ModuleType

from torch import nn

from .widths import scaled

AUXILIARY = ("googlenet", "inception_v3")  # their training output is a tuple unless the auxiliary heads are left out


def torchvision_models() -> ModuleType:
    """torchvision.models; the import takes two seconds."""
    import torchvision.models

    return torchvision.models


def timm_library() -> ModuleType:
    """timm, or a ValueError that says how to install it."""
    if importlib.util.find_spec("timm") is None:
        raise ValueError("timm is not installed: python -m pip install timm")
    import timm

    return timm


def check_known(kind: str, name: str, names: Sequence[str]) -> None:
    """A ValueError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f": near are {', '.join(near)}" if near else ""
        raise ValueError(f"{kind} has no classification network {name!r}{hint}")


def from_torchvision(name: str, image: Sequence[int], classes: int) -> nn.Module:
    """torchvision's network `name`, untrained, for images [channels, height, width]; without auxiliary heads."""
    library = torchvision_models()
    options: dict[str, object] = {}
    if name in AUXILIARY:
        options = {"aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": _square(name, image)}
    net = library.get_model(name, weights=None, num_classes=classes, **options)
    take_channels(net, image[0])
    return net


def from_timm(name: str, image: Sequence[int], classes: int) -> nn.Module:
    """timm's network `name`, untrained, for images [channels, height, width]."""
    library = timm_library()
    config = library.get_pretrained_cfg(name)
    options = {"img_size": tuple(image[1:])} if config is not None and config.fixed_input_size else {}
    return library.create_model(name, pretrained=False, num_classes=classes, in_chans=image[0], **options)


def _square(name: str, image: Sequence[int]) -> int:
    if image[1] != image[2]:
        raise ValueError(f"{name} is for square images and these are {image[1]}x{image[2]}")
    return image[1]


def convolution_like(module: nn.Conv2d, entering: int, leaving: int) -> nn.Conv2d:
    """A new convolution with the filter, step and border of `module` for other channels."""
    height, width = module.kernel_size
    down, right = module.stride
    padding = module.padding if isinstance(module.padding, str) else (module.padding[0], module.padding[1])
    return nn.Conv2d(entering, leaving, (height, width), (down, right), padding, bias=module.bias is not None)


def take_channels(net: nn.Module, channels: int) -> None:
    """Make the first convolution of `net` one for images of so many channels, in place."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != channels:
                net.set_submodule(name, convolution_like(module, channels, module.out_channels))
            return


def widen(net: nn.Module, factor: float) -> None:
    """Scale all channels of a network of ungrouped convolutions, batch norms and one linear layer, in place.

    The image's channels (of the first convolution) and the classes stay. All layers with the same number of channels
    keep having the same, so that sums still fit.
    """
    first = True
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            entering, leaving = scaled((module.in_channels, module.out_channels), factor)
            entering, first = module.in_channels if first else entering, False
            net.set_submodule(name, convolution_like(module, entering, leaving))
        elif isinstance(module, nn.BatchNorm2d):
            net.set_submodule(name, nn.BatchNorm2d(scaled((module.num_features,), factor)[0]))
        elif isinstance(module, nn.Linear):
            net.set_submodule(name, nn.Linear(scaled((module.in_features,), factor)[0], module.out_features))

"""What a search is given, checked before it begins: tensors of kinds that it can learn from, and a network that can take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from popup.errors import UsageError
from popup.lab.data.dataset import Split, check_finite
from popup.lab.data.streamed import Streamed
from popup.lab.foreign import FAULTS
from popup.search.network import search_of
from popup.search.plain import merge
from popup.search.reach import check_reached
from popup.source.copying import deep_copy
from popup.source.labels import check_classes
from popup.source.layers import Layer
from popup.source.modes import in_mode


def checked(split: Split, name: str, device: torch.device) -> Split:
    """The split on the device, or a UsageError that says what is wrong with it."""
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise UsageError(f"{name} is a {type(split).__name__}: pass (images, labels) as torch tensors, all of them")
    images, labels = split
    for part in split:
        if not isinstance(part, (torch.Tensor, Streamed)):
            raise UsageError(f"{name} holds {type(part).__name__}: pass (images, labels) as torch tensors (torch.as_tensor makes "
                             "one of an array)")
    if len(images) != len(labels) or not len(images):
        raise UsageError(f"{name} has {len(images)} images and {len(labels)} labels: pass one label an image, at least one")
    if labels.dtype != torch.int64 or labels.dim() not in (1, 2):
        raise UsageError(f"the labels of {name} have dtype {labels.dtype} and shape {list(labels.shape)}: pass class numbers as "
                         "int64 [n], or of texts what comes next, int64 [n, tokens]")
    if isinstance(images, torch.Tensor) and images.is_floating_point():
        images = images.float()  # what numpy has is float64
    if images.dtype not in (torch.uint8, torch.float32, torch.int64):
        raise UsageError(f"the inputs of {name} have dtype {images.dtype}: pass images as uint8 or float32, tokens as int64")
    check_finite(images, f"the images of {name}")
    images = images.detach() if isinstance(images, torch.Tensor) else images  # a network that learns may have made them
    return images.to(device), labels.to(device)


def check_precision(net: nn.Module) -> None:
    """A UsageError unless all parameters are float32."""
    for name, parameter in net.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise UsageError(f"{name} is {parameter.dtype}: weights are searched in float32, so call net.float() first (with "
                             "precision bf16 it computes in bfloat16 all the same)")


@torch.no_grad()
def check_network(net: nn.Module, layers: Sequence[Layer], inputs: torch.Tensor, *labels: torch.Tensor) -> None:
    """A UsageError unless the plain network makes logits [n, classes] of a few `inputs` [n, ...] (of texts [n, tokens, classes]),
    with `labels` among its classes, and uses the weight of each of its `layers`, which are to be masked. A lazy one is left as
    it is."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in net.parameters()):
        return
    try:
        logits = check_reached(net, layers, inputs)
    except UsageError:
        raise
    except FAULTS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{type(net).__name__} cannot take inputs {list(inputs.shape)} of {inputs.dtype}: {reason}") from None
    _check_labels(type(net).__name__, logits, len(inputs), labels)


def check_attached(net: nn.Module, inputs: torch.Tensor) -> None:
    """A UsageError if the attached network cannot be trained by a few `inputs`, though it can as a plain one, or writes to one of
    its weights then. Tried on copies."""
    with torch.random.fork_rng([inputs.device] if inputs.is_cuda else []):
        try:
            tried = in_mode(deep_copy(net), True)
            search_of(tried).ordered = True  # as its first scores will be: here any will do
            tried(inputs)
        except UsageError:
            raise
        except FAULTS as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            try:
                in_mode(merge(net), True)(inputs)
            except FAULTS:  # of its own, which training will meet, and say where
                return
            raise UsageError(f"{type(net).__name__} takes inputs {list(inputs.shape)} in training mode no more once popup is "
                             f"attached ({reason}): let forward ask each layer's module for its weight, and not the network for "
                             "parameters by name") from None


def _check_labels(name: str, logits: torch.Tensor, count: int, labels: Sequence[torch.Tensor]) -> None:
    places = labels[0].shape[1:]  # none, or those of a text
    if others := [part.shape for part in labels if part.shape[1:] != places]:
        raise UsageError(f"labels have the shapes {list(labels[0].shape)} and {list(others[0])}: training and test data have one "
                         "label an input each, or one a token of as many")
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 + len(places) or logits.shape[:-1] != (count, *places):
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        wanted = ", ".join(["n", *map(str, places), "classes"])
        raise UsageError(f"{name} makes {found} of {count} inputs: it must make logits [{wanted}]")
    check_classes(labels, logits.shape[-1], name)

"""The plain network of a config: found by name, built for the data's images, tried once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from popup.errors import UsageError, check_name
from popup.lab.config import Config
from popup.lab.foreign import FAULTS, told
from popup.lab.inputs import blank, called, logits_shape
from popup.lab.parts import attributes
from popup.lab.randomness import building, loading
from popup.source.copying import deep_copy
from popup.source.modes import in_mode, modes_kept

Models = Mapping[str, Callable[..., nn.Module]]  # name -> builder(image [c, h, w] or window [tokens], classes[, widths][, width])
KINDS = ("torchvision", "timm", "chain")  # before the colon of a name: what is no module of the user's
OTHERS = ("torchvision:NAME", "timm:NAME", "chain:WORDS", "MODULE:FUNCTION")


def find_builder(models: Models, name: str) -> Callable[..., nn.Module]:
    """The builder of a name, or a UsageError that says what is allowed or missing. A user's module is imported for it, and what
    that draws is the same in each process."""
    try:
        with loading():
            return models[name]
    except (UsageError, MemoryError):
        raise
    except ValueError as error:  # what the mapping says of a name with a colon
        raise UsageError(f"model {name!r}: {told(error)}") from None
    except FAULTS as error:
        if ":" not in name:
            check_name("model", name, [*models, *OTHERS])
            raise
        raise UsageError(f"model {name!r}: its module cannot be imported: {told(error)}") from None


def build_network(models: Models, config: Config, image: Sequence[int], classes: int) -> nn.Module:
    """The plain network of a config for images [channels, height, width], or for windows [tokens]; what its builder draws is of
    the config's seed.

    Raises UsageError if it cannot be built or does not give one logit a class.
    """
    task = config.task
    builder = find_builder(models, task.model)
    options = _options(builder, config)
    try:
        with building(config.source.seed):  # and not the import of its module
            net = builder(image, classes, **options)
            _try(net, image, classes)
    except (UsageError, MemoryError):
        raise
    except FAULTS as error:
        how = "".join(f" with {name} {list(value) if name == 'widths' else value}" for name, value in options.items())
        raise UsageError(f"model {task.model!r} cannot be built for {called(image)} {list(image)}{how}: {told(error)}") from None
    return net


def outline(models: Models, config: Config, image: Sequence[int], classes: int) -> nn.Module | None:
    """The same network without memory, which costs next to nothing; None if it cannot be built so (its builder may need
    numbers, or something is wrong with it that `build_network` tells). A user's module is imported before, so that its constants
    have numbers; what a function keeps from call to call would have none."""
    find_builder(models, config.task.model)
    with torch.device("meta"):
        try:
            return build_network(models, config, image, classes)
        except UsageError:
            return None


def without_numbers(net: nn.Module) -> nn.Module:
    """A copy of `net` without its memory where that can be: an outline of what cannot be built as one. What `net` shares with
    other networks keeps its numbers."""
    held = [each.value for each in attributes(net) if isinstance(each.value, torch.Tensor)]
    try:
        memo: dict[int, Any] = {id(tensor): tensor.to("meta") for tensor in (*net.buffers(), *held)}
        memo |= {id(each): nn.Parameter(each.detach().to("meta"), each.requires_grad) for each in net.parameters()}
        return deep_copy(net, memo)
    except (RuntimeError, TypeError):  # a kind of tensor that is always somewhere
        return net


def is_own(name: str) -> bool:
    """Whether a model is made by a function of the user's, which may make another network tomorrow."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind not in KINDS


def _options(builder: Callable[..., nn.Module], config: Config) -> dict[str, Any]:
    """--widths and --width where they were given; a UsageError if the builder does not take them."""
    task = config.task
    options = {name: value for name, value, default in (("widths", task.widths, ()), ("width", task.width, 1.0))
               if value != default}
    try:
        signature = inspect.signature(builder)
    except ValueError:  # a callable without a signature: it will say itself what it does not take
        return options
    for name in options:
        if name not in signature.parameters:
            raise UsageError(f"model {task.model!r} takes no --{name}: leave it out, or write a builder that has a "
                             f"parameter {name!r}")
    try:
        signature.bind((), 0, **options)
    except TypeError as error:
        raise UsageError(f"model {task.model!r} is called with (image [channels, height, width], classes), and its function is "
                         f"{task.model.rpartition(':')[2]}{signature}: {error}") from None
    return options


@torch.no_grad()
def _try(net: nn.Module, image: Sequence[int], classes: int) -> None:
    """A ValueError unless the network makes logits [2, classes] of two images, of windows [2, tokens, classes]."""
    if not isinstance(net, nn.Module):
        raise ValueError(f"its builder returned {type(net).__name__}, not a torch.nn.Module")
    with modes_kept(net):
        output, wanted = in_mode(net, False)(blank(image)), logits_shape(image, classes, 2)
    if not isinstance(output, torch.Tensor) or output.shape != wanted:
        found = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(f"it makes {found} of two {called(image)}, not logits {list(wanted)}")

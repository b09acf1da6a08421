"""What one input is, by its shape: an image [channels, height, width], features [features], or a window [tokens] of a text, which
has a label a token."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Window(tuple[int, ...]):
    """The shape [tokens] of a window: of whole numbers, which a network embeds, where other shapes are of numbers to compute
    with."""

    __slots__ = ()


def is_window(shape: Sequence[int]) -> bool:
    """Whether inputs of that shape are windows of tokens."""
    return isinstance(shape, Window)


def called(shape: Sequence[int]) -> str:
    """What inputs of that shape are, in the plural."""
    return "windows of tokens" if is_window(shape) else "features" if len(shape) == 1 else "images"


def blank(shape: Sequence[int], count: int = 2) -> torch.Tensor:
    """`count` inputs of zeros."""
    return torch.zeros(count, *shape, dtype=torch.int64 if is_window(shape) else torch.float32)


def noise(shape: Sequence[int], classes: int, count: int) -> torch.Tensor:
    """`count` inputs of noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    if is_window(shape):
        return torch.randint(classes, (count, *shape), generator=generator)
    return torch.randn(count, *shape, generator=generator)


def logits_shape(shape: Sequence[int], classes: int, count: int) -> tuple[int, ...]:
    """What a network makes of `count` inputs: logits of each, of a window of each place."""
    return (count, *shape, classes) if is_window(shape) else (count, classes)

"""What one input is, by its shape: an image [channels, height, width], features [features], or whole numbers [tokens]: a window
of a text, which has a label a token, or a sequence of tokens, which has one."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Window(tuple[int, ...]):
    """The shape [tokens] of a window: of whole numbers, which a network embeds, where other shapes are of numbers to compute
    with. What it says of each place is a token too."""

    __slots__ = ()


class Tokens(tuple[int, ...]):
    """The shape [tokens] of a sequence that has one label: of whole numbers from 0 to below `vocabulary`."""

    vocabulary: int

    def __new__(cls, sides: Sequence[int], vocabulary: int) -> Tokens:
        found = super().__new__(cls, sides)
        found.vocabulary = vocabulary
        return found


def is_window(shape: Sequence[int]) -> bool:
    """Whether inputs of that shape are windows of tokens."""
    return isinstance(shape, Window)


def is_embedded(shape: Sequence[int]) -> bool:
    """Whether inputs of that shape are whole numbers, which a network embeds."""
    return isinstance(shape, (Window, Tokens))


def called(shape: Sequence[int]) -> str:
    """What inputs of that shape are, in the plural."""
    if is_embedded(shape):
        return "windows of tokens" if is_window(shape) else "sequences of tokens"
    return "features" if len(shape) == 1 else "images"


def blank(shape: Sequence[int], count: int = 2) -> torch.Tensor:
    """`count` inputs of zeros."""
    return torch.zeros(count, *shape, dtype=torch.int64 if is_embedded(shape) else torch.float32)


def noise(shape: Sequence[int], classes: int, count: int) -> torch.Tensor:
    """`count` inputs of noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    if is_embedded(shape):
        tokens = shape.vocabulary if isinstance(shape, Tokens) else classes
        return torch.randint(tokens, (count, *shape), generator=generator)
    return torch.randn(count, *shape, generator=generator)


def logits_shape(shape: Sequence[int], classes: int, count: int) -> tuple[int, ...]:
    """What a network makes of `count` inputs: logits of each, of a window of each place."""
    return (count, *shape, classes) if is_window(shape) else (count, classes)

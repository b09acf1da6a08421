"""A chain of layers that is written as words, such as conv3p1-relu-max2-flatten-linear."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import nn

from .widths import scaled

SIDES = r"(\d{1,3}(?:x\d{1,3})?)"
PLAIN = ("one", "flatten", "relu", "tanh", "sigmoid", "norm", "linear", "skip", "add")
LEAKY = re.compile(r"leaky(0\.\d{1,20})?")
WORD = re.compile(rf"({'|'.join(PLAIN)}|(?:conv|max|avg)(?=\d)){SIDES}?(?:s{SIDES})?(?:p{SIDES})?(?:d{SIDES})?")
LAYERS = ("linear", "conv")
Pair = tuple[int, int]  # height and width


class AppendOne(nn.Module):
    """[n, features, ...] -> [n, features + 1, ...]: the constant 1 as a last feature, or channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.new_ones(len(x), 1, *x.shape[2:])], dim=1)


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def chain(words: str, image: Sequence[int], classes: int, widths: Sequence[int] = (), *, width: float = 1.0) -> nn.Sequential:
    """The network of `words`, joined by `-`: conv, max and avg with a kernel's side and stride, padding and dilation
    (conv3x5s2p1, max2: the stride of a pool is its kernel), linear, norm (a batch norm), relu, leaky0.01, tanh, sigmoid,
    flatten, one: a constant 1 as a last channel, and skip and add: what there is at skip is added at the next add.

    `widths`: the channels or neurons of all layers but the last, which has the classes. Layers have biases, but before a
    norm, whose shift is one, and in a network with `one`. Raises ValueError, with the word or the widths, for what cannot be.
    """
    kinds = [parse(word) for word in words.split("-")]
    count = sum(kind in LAYERS for kind, *_ in kinds)
    if count != len(widths) + 1:
        raise ValueError(f"{words} has {count} layers: give {max(0, count - 1)} widths, as the last has the classes")
    sizes, biases = iter([*scaled(widths, width), classes]), all(kind != "one" for kind, *_ in kinds)
    modules, shape = list[nn.Module](), tuple(image)
    outside, there = list[nn.Module](), tuple[int, ...]()  # of a shortcut that is open: what stands before it, and the shape
    for place, (kind, *sides) in enumerate(kinds):
        if kind == "skip":
            if next((later for later, *_ in kinds[place + 1:] if later in ("skip", "add")), "") != "add":
                raise ValueError(f"{words} has a skip that no add ends before the next")
            outside, there, modules = modules, shape, []
            continue
        if kind == "add":
            modules, outside, there = _added(words, outside, modules, there, shape), [], ()
            continue
        out = next(sizes) if kind in LAYERS else 0
        normed = kinds[place + 1:place + 2] and kinds[place + 1][0] == "norm"
        modules.append(_module(kind, sides, shape, out, biases and not normed))
        shape = _shape(kind, sides, shape, out)
        if min(shape) < 1:
            raise ValueError(f"{words} does not fit images {list(image)}: a map would have sides {list(shape[1:])}")
    return nn.Sequential(*modules)


def _added(words: str, outside: list[nn.Module], body: list[nn.Module], there: tuple[int, ...],
           shape: tuple[int, ...]) -> list[nn.Module]:
    """The modules before a shortcut, with the block that it makes of those behind."""
    if not body or there != shape:
        raise ValueError(f"{words} has an add of {list(shape)} to {list(there)}: open it by a skip, and keep the shape")
    return [*outside, Residual(nn.Sequential(*body))]


def parse(word: str) -> tuple[str, Pair, Pair, Pair, Pair]:
    """What a step is, and its kernel, stride, padding and dilation as (height, width)."""
    if LEAKY.fullmatch(word):
        return word, (1, 1), (1, 1), (0, 0), (1, 1)
    found = WORD.fullmatch(word)
    if not found or (found[1] in PLAIN and found[1] != word):
        raise ValueError(f"{word!r} is no layer: write {', '.join(PLAIN)}, leaky0.01, or conv, max or avg with a kernel, such "
                         "as conv3p1 or max2")
    kernel = _sides(found[2], (1, 1))
    stride = _sides(found[3], (1, 1) if found[1] == "conv" else kernel)
    padding, dilation = _sides(found[4], (0, 0)), _sides(found[5], (1, 1))
    least = min(*kernel, *stride, *dilation)
    if least < 1 or any(pad >= side * apart for pad, side, apart in zip(padding, kernel, dilation, strict=True)):
        raise ValueError(f"{word!r} cannot be: kernel, stride and dilation are 1 or more, padding is less than the kernel")
    if found[1] == "avg" and (any(padding) or dilation != (1, 1)):
        raise ValueError(f"{word!r} cannot be: an average has no padding and no dilation")
    return found[1], kernel, stride, padding, dilation


def _sides(text: str | None, default: Pair) -> Pair:
    if text is None:
        return default
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _module(kind: str, sides: Sequence[Pair], shape: Sequence[int], out: int, biases: bool) -> nn.Module:
    kernel, stride, padding, dilation = sides
    if kind in ("conv", "max", "avg") and len(shape) != 3:
        raise ValueError(f"{kind} cannot follow flatten: there is no map")
    if kind == "linear" and len(shape) != 1:
        raise ValueError("linear needs flatten before it")
    make: dict[str, Callable[[], nn.Module]] = {
        "one": AppendOne, "flatten": nn.Flatten, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
        "norm": lambda: nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0]),
        "linear": lambda: nn.Linear(shape[0], out, bias=biases),
        "conv": lambda: nn.Conv2d(shape[0], out, kernel, stride, padding, dilation, bias=biases),
        "max": lambda: nn.MaxPool2d(kernel, stride, padding, dilation),
        "avg": lambda: nn.AvgPool2d(kernel, stride)}
    if leaky := LEAKY.fullmatch(kind):
        return nn.LeakyReLU(float(leaky[1] or 0.01))
    return make[kind]()


def _shape(kind: str, sides: Sequence[Pair], shape: tuple[int, ...], out: int) -> tuple[int, ...]:
    """What a step makes of an image [channels, height, width], or of features."""
    if kind == "flatten":
        return (prod(shape),)
    if kind == "one":
        return (shape[0] + 1, *shape[1:])
    if kind in ("relu", "tanh", "sigmoid", "norm", "linear") or LEAKY.fullmatch(kind):
        return (out,) if out else shape
    places = [(side + 2 * pad - apart * (kernel - 1) - 1) // stride + 1
              for side, kernel, stride, pad, apart in zip(shape[1:], *sides, strict=True)]
    return (out or shape[0], *places)

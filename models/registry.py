"""Names of networks: those of this package, torchvision's, timm's, and a user's own builder by where it is defined."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from .chain import chain, parse
from .vendor import check_known, from_timm, from_torchvision, timm_library, torchvision_models

Builder = Callable[..., nn.Module]  # (image [channels, height, width], classes[, widths][, width=factor]) -> network


class Models(Mapping[str, Builder]):
    """The networks of this package by name; `models["a:b"]` finds others too, which are not listed.

    `torchvision:NAME`, `timm:NAME`, `chain:WORDS`, or `my_package.my_module:build`. An unknown plain name is a KeyError, an
    unknown name with a colon a ValueError that says in one line what is missing.
    """

    def __init__(self, builders: Mapping[str, Builder]) -> None:
        self._builders = dict(builders)

    def __getitem__(self, name: str) -> Builder:
        place, colon, attribute = name.partition(":")
        if not colon:
            return self._builders[name]
        known = {"torchvision": torchvision_builder, "timm": timm_builder, "chain": chain_builder}
        return known.get(place, partial(own_builder, place))(attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


def torchvision_builder(name: str) -> Builder:
    """The builder of torchvision's classification network `name`."""
    library = torchvision_models()
    check_known("torchvision", name, library.list_models(module=library))
    return partial(from_torchvision, name)


def timm_builder(name: str) -> Builder:
    """The builder of timm's network `name`."""
    check_known("timm", name.split(".")[0], timm_library().list_models())
    return partial(from_timm, name)


def chain_builder(words: str) -> Builder:
    """The builder of the chain of layers that `words` name (models/chain.py)."""
    for word in words.split("-"):
        parse(word)
    return partial(chain, words)


def own_builder(module: str, attribute: str) -> Builder:
    """A user's function, from a module in the working directory or wherever Python finds it."""
    if os.getcwd() not in sys.path:  # run.py's own directory is on it; what the function imports later is found there too
        sys.path.append(os.getcwd())
    try:
        found = pkgutil.resolve_name(f"{module}:{attribute}")
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{module}:{attribute} is not there ({error}): write MODULE:FUNCTION, of a module that can be "
                         "imported from this directory") from None
    if not callable(found):
        raise ValueError(f"{module}:{attribute} is {type(found).__name__}: it must be a function (image, classes) -> "
                         "network")
    builder: Any = found
    return builder

"""What an earlier call of `popup.fit` has left on a network, and which later call may go on with it.

An attached network is searched on from the scores that it holds, in the source that it has. So a config that says otherwise is
refused: its figures would be taken for those of a source that was never searched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.identity import described, fingerprint, held
from popup.search.network import search_of
from popup.search.plain import merge
from popup.search.search import Search
from popup.search.settings import SearchSettings
from popup.source.recipe import Recipe
from popup.ticket.sealed import SealedError

ANEW = "popup.detach(net) first, and fit begins anew"


def attached_by_fit(net: nn.Module) -> None:
    """Note that fit has attached `net`."""
    search_of(net).finished = False


def known(net: nn.Module, plain: nn.Module | None) -> str:
    """What tells the attached network `net` from another (popup/lab/identity.py), as it was when a checkpoint was first asked
    for: what a loop sets from epoch to epoch, such as a dropout rate, makes no other one of it; and its source and search, which
    of a network that came attached no config says. `plain`: a plain copy, if there is one."""
    search = search_of(net)
    if not search.known:
        plain = merge(net) if plain is None else plain
        settings = {"source": repr(search.recipe.record()), "search": repr(search.settings.record())}
        search.known = fingerprint(described(plain) | held(plain) | settings)
    return search.known


@contextlib.contextmanager
def noted(net: nn.Module) -> Iterator[None]:
    """Note, of a network that fit has attached, whether the block came to its end: it is a whole call's search and proof."""
    search = search_of(net)
    if search.finished is None:
        yield
        return
    moves, whole = search.moves, search.finished or search.steps == 0
    search.finished = False
    try:
        yield
    except (UsageError, SealedError):
        search.finished = whole and search.moves == moves  # a checkpoint or a compiler was refused: scores are what they were
        raise
    search.finished = True


def check_earlier(net: nn.Module, config: Config, goes_on: bool) -> None:
    """A UsageError if the attached network `net` is not what `config` says, or holds scores that no search should begin with.
    `goes_on`: a checkpoint has others, which take their place."""
    search = search_of(net)
    _check_same(search, config)
    if goes_on:
        return
    for layer, scores in zip(search.layers, search.scores(), strict=True):
        if not bool(scores.isfinite().all()):
            raise UsageError(f"the scores of {layer.spec.name} are not finite, as a search that failed leaves them: "
                             "popup.detach(net) first, and attach it anew")
    if search.finished is False:
        raise UsageError(f"{type(net).__name__} holds a search that popup.fit has begun and that was broken off after "
                         f"{search.steps} steps, so that the config's would end elsewhere: {ANEW} (popup.extract(net) is what "
                         "was found so far)")


def _check_same(search: Search, config: Config) -> None:
    """A UsageError for a source or a search of `config` that `search` is not of. Of a network that its user has attached what the
    config leaves as it usually is says nothing, and its seed is that of the images' order."""
    ours = search.finished is not None
    remedy = ANEW if ours else "leave it out, or popup.detach(net) first"
    for name, asked, usual, there in _fields(search, config):
        if asked != there and (ours or (asked != usual and name != "seed")):
            raise UsageError(f"{name} is {asked!r:.80} in the config and {there!r:.80} in the network, which "
                             f"{'an earlier popup.fit' if ours else 'you'} attached: {remedy}")


def _fields(search: Search, config: Config) -> Iterator[tuple[str, Any, Any, Any]]:
    """Of each field of the source and the search its name, the config's value, the usual one, and the network's."""
    sides = (config.source, Recipe(), search.recipe), (config.search.settled(), SearchSettings(), search.settings.settled())
    for asked, usual, there in sides:
        for name in vars(asked):
            yield name, getattr(asked, name), getattr(usual, name), getattr(there, name)

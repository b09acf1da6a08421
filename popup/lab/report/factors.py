"""The factors of a comparison: what a field counts as for a config, where it matters, and which of its values agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from popup.lab.config import Config
from popup.search.settings import SearchSettings
from popup.source.recipe import SPREAD

SEARCH = tuple(part.name for part in fields(SearchSettings))
ANY = "any"  # the value of a factor where it does not matter: it is equal to every other
EVEN = ("source", "uniform")  # the densities of tickets that are one where the source is uniform itself,
EITHER = "source or uniform"  # and what such a ticket has beside others that have the one and the other


def matters(config: Config, name: str) -> bool:
    """Whether a field matters to a run of this config: the layerwise density and the mask not to a complete source, the
    tickets' not where all edges are kept, a setting of the search to its own method only."""
    if name in SPREAD:
        return not config.source.complete
    if name == "ticket_density":
        return config.source.k < 1
    return name not in SEARCH or name in config.search.used()


def vague(value: Any) -> bool:
    """Whether a value agrees with others than itself."""
    return value in (ANY, EITHER)


def agree(first: Any, second: Any) -> bool:
    """Whether two values of a factor are one to the runs that have them."""
    return first == second or ANY in (first, second) or (EITHER in (first, second) and {first, second} <= {EITHER, *EVEN})


def even_name(configs: Sequence[Config]) -> str:
    """What the density of tickets is called that are as uniform as their source: as it is where tickets are not, so that those
    that were asked for alike meet."""
    named = sorted({config.source.ticket_density for config in configs if config.source.k < 1 and not _even(config)} & {*EVEN})
    return EITHER if named[1:] else named[0] if named else EVEN[0]


def asked(config: Config, even: str) -> dict[str, Any]:
    """What was asked for; `even` names the density of a ticket that is as uniform as its source."""
    return config.asked() | ({"ticket_density": even} if _even(config) else {})


def _even(config: Config) -> bool:
    """Whether "source" and "uniform" are one density of tickets here. (A computed mask has layerwise densities of its own.)"""
    source = config.source
    return source.ticket_density in EVEN and (source.complete or (source.density == "uniform" and source.draws_edges))

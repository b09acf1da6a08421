"""How a ticket is searched for inside a given source."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from math import inf
from typing import Any

import numpy as np

from popup.errors import UsageError, check_count, check_name, check_number
from popup.search.keys import RANKS
from popup.search.methods import METHODS, TICKET_METHODS
from popup.search.methods.coats import COAT_RULES, MOST_COATS, first_rule
from popup.search.methods.draws import CHOICES
from popup.search.methods.method import FAN_IN, KEPT
from popup.search.schedule import SCHEDULES
from popup.search.select import SCOPES
from popup.source.books import MOST_DRAWS
from popup.source.counts import kept_edges
from popup.source.layers import Layer
from popup.source.masks import share
from popup.source.recipe import LATER, as_before
from popup.source.streams import Stream

SCORE_UNITS = ("auto", FAN_IN, KEPT)
RANDOM, GRADIENT = "random", "gradient"  # what says which edge has which of the first scores


@dataclass(frozen=True)
class SearchSettings:
    """The method, what its selection ranks and over what, the course of k, and what single methods want to know."""

    method: str = field(default="edge_popup", metadata={
        "axis": True, "help": "how scores are learned and become a ticket", "choices": tuple(METHODS)})
    scope: str = field(default="layer", metadata={
        "axis": True, "help": "keep the fraction k of each layer's edges, or of the whole network's", "choices": tuple(SCOPES)})
    floor: float = field(default=0.0, metadata={
        "help": "scope global: each layer keeps at least this fraction of its share k, and at least one edge"})
    rank: str = field(default="magnitude", metadata={
        "axis": True, "choices": tuple(RANKS),
        "help": "rank |s|, or s itself (edge_popup, averaged, frozen, biprop, iterand, coats)"})
    score_scale: float = field(default=1.0, metadata={
        "help": "size of the first scores: uniform in +-score_scale/sqrt(fan_in), or as the method says"})
    score_unit: str = field(default="auto", metadata={LATER: "auto", "axis": True, "choices": SCORE_UNITS, "help": (
        "what score_scale is a multiple of: fan_in, 1/sqrt(fan_in); kept, 1/sqrt(the edges that a unit keeps on average), as its "
        "weights are; or auto, kept for signed and fan_in for the others")})
    first_scores: str = field(default=RANDOM, metadata={LATER: RANDOM, "axis": True, "choices": (RANDOM, GRADIENT), "help": (
        "which edge has which of a layer's first scores: as drawn, or by the gradient of some batches the highest where a weight "
        "lowers the loss most (not in draws, gates, gem_miner, random, sampled)")})
    anneal: str = field(default="none", metadata={
        "axis": True, "help": "how the kept fraction of the search goes from k_start to k", "choices": tuple(SCHEDULES)})
    k_start: float = field(default=1.0, metadata={"help": "anneal: the fraction that is kept at first, at least k"})
    anneal_until: float = field(default=0.8, metadata={"help": "anneal: the fraction of the search after which k is reached"})
    average_from: float = field(default=0.5, metadata={
        "help": "averaged: the fraction of the search after which scores are averaged"})
    locked: float = field(default=0.5, metadata={
        "axis": True, "help": "frozen: the fraction of each layer's kept edges that is locked, at random, before the search"})
    redraw_every: int = field(default=300, metadata={
        "help": "iterand: steps between redraws of unselected edges; a search of fewer steps redraws none"})
    redraw_rate: float = field(default=0.1, metadata={
        "help": "iterand: the probability with which a redraw takes an unselected edge"})
    penalty: float = field(default=1.0, metadata={
        "help": "gem_miner, sampled, gates: factor on what the method adds to the loss"})
    hard_from: float = field(default=0.5, metadata={LATER: 1.0, "help": (
        "gates: the fraction of the search after which passes use the ticket itself, so that scores learn what is cut")})
    coats: int = field(default=3, metadata={LATER: 3, "axis": True, "help": (
        "coats: how many nested selections are added up, so that an edge's weight counts 0 to so many times")})
    coat_rule: str = field(default="thirds", metadata={LATER: "thirds", "axis": True, "choices": tuple(COAT_RULES), "help": (
        "coats: how many edges a coat keeps: evenly fewer from coat to coat, or half or a third of the coat below")})
    draws: int = field(default=8, metadata={LATER: 8, "axis": True, "help": (
        "draws: how many random weights each edge has to choose from (as many scores, as much memory)")})
    draw_choice: str = field(default="greedy", metadata={LATER: "greedy", "axis": True, "choices": CHOICES, "help": (
        "draws: a training pass uses the draw of the highest score, or one drawn from the softmax of the scores")})

    def __post_init__(self) -> None:
        check_name("method", self.method, TICKET_METHODS)
        check_name("scope", self.scope, SCOPES)
        check_name("rank", self.rank, RANKS)
        check_name("anneal", self.anneal, SCHEDULES)
        check_number("score_scale", self.score_scale, 1e-30, 1e30)  # float32 has scores of that size, and their changes
        for name in ("floor", "average_from", "locked", "hard_from"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("k_start", "anneal_until", "redraw_rate"):
            check_number(name, getattr(self, name), 0.0, 1.0, open_low=True)
        check_count("redraw_every", self.redraw_every)
        check_number("penalty", self.penalty, 0.0, inf)
        for name, least, most in (("coats", 1, MOST_COATS), ("draws", 2, MOST_DRAWS)):
            if check_count(name, getattr(self, name), least) > most:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at most {most}")
        check_name("draw_choice", self.draw_choice, CHOICES)
        check_name("first_scores", self.first_scores, (RANDOM, GRADIENT))
        check_name("score_unit", self.score_unit, SCORE_UNITS)
        check_name("coat_rule", self.coat_rule, COAT_RULES)

    def floor_of(self, count: int) -> int:
        """How many edges a layer keeps at least, whose share is `count`."""
        return max(min(1, count), share(self.floor, count) if self.floor else 0)

    @property
    def unit(self) -> str:
        """What the first scores are multiples of: as asked for, or as the method has it."""
        return TICKET_METHODS[self.method].score_unit if self.score_unit == "auto" else self.score_unit

    @property
    def ordered(self) -> bool:
        """Whether first scores are to be ordered by a gradient."""
        return self.first_scores == GRADIENT and "first_scores" in self.used()

    def used(self) -> set[str]:
        """The names of the fields that matter to a search with these settings."""
        names = {"method", "scope", *TICKET_METHODS[self.method].uses} | ({"floor"} if self.scope == "global" else set())
        names -= {"coat_rule"} if self.coats == 1 else set()
        return names | ({"k_start", "anneal_until"} if "anneal" in names and self.anneal != "none" else set())

    def record(self) -> dict[str, Any]:
        """The settings as plain values, for a ticket's metadata: without what came later and is as it was before, or does not
        matter, so that tickets of then have the same bytes."""
        return {name: value for name, value in asdict(self).items() if name not in self.as_before()}

    def as_before(self) -> set[str]:
        """The fields that came later, and are as it was before them or do not matter."""
        return as_before(self) | {part.name for part in fields(self) if LATER in part.metadata and part.name not in self.used()}

    def settled(self) -> SearchSettings:
        """The settings with each field that does not matter at its default: equal searches have equal ones."""
        found = SearchSettings(**{name: value for name, value in vars(self).items() if name in self.used()})
        found = replace(found, coat_rule=first_rule(found.coats, found.coat_rule)) if "coat_rule" in self.used() else found
        usual = METHODS[self.method].score_unit == FAN_IN == self.unit  # which runs of before had, and have no word for
        return replace(found, score_unit="auto" if usual or "score_unit" not in self.used() else self.unit)

    def asked(self) -> dict[str, Any]:
        """The fields by name, in the words that ask for least, so that methods are told apart by nothing that each has anyhow."""
        own = self.unit == TICKET_METHODS[self.method].score_unit
        return {**vars(self), "score_unit": "auto" if own else self.score_unit}


def first_scores(settings: SearchSettings, seed: int, layer: Layer, count: int, k: float) -> np.ndarray:
    """The float32 scores of `count` edges, as the method distributes them, from the layer's own stream."""
    method = METHODS[settings.method](settings)
    words = Stream(seed, "scores", layer.name).words32(count * method.scores_an_edge)
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    inputs = layer.fan_in * kept_edges(k, count) / layer.entries if settings.unit == KEPT and count else layer.fan_in
    return method.first_scores(uniform, inputs, k).astype(np.float32)

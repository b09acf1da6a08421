"""The options of `python run.py law`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from popup.errors import UsageError, check_count, check_number
from popup.lab.commands.prove_options import ProveOptions

MOST_WEIGHTS: Any = ProveOptions.__dataclass_fields__["most_weights"]
MOST_OF_TARGET = 10_000_000  # weights of a random target, whose sources have many times as many


@dataclass(frozen=True)
class LawOptions:
    """Measure how many copies of a neuron theory's construction needs in a real ER source, and plot it with its curves."""

    er_p: tuple[float, ...] = field(default=(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0), metadata={
        "help": "densities p"})
    epsilon: tuple[float, ...] = field(default=(1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4), metadata={
        "help": "errors allowed to a parameter in [-1, 1]"})
    delta: tuple[float, ...] = field(default=(0.05,), metadata={
        "help": "shares of the parameters that may miss; the forms of the law are fitted over all of them, the picture and "
                "the one constant are of the first"})
    all_at_once: int = field(default=100, metadata={
        "help": "draws of candidates in which all parameters in [-1, 1] at once have to be met, up to 18 each; 0: none"})
    parameters: int = field(default=4000, metadata={"help": "parameters at each p"})
    sources: int = field(default=200, metadata={"help": "sources in each measurement of exact representation; 0: none"})
    locked: tuple[float, ...] = field(default=(), metadata={
        "help": "shares of the edges that are locked, as in partially frozen sources: part of every sum; none: not measured"})
    attention: int = field(default=0, metadata={
        "help": "random sources of a head of attention, for each key and value dimension from 24 to 288, in which a head of 4 "
                "features is built; 0: none"})
    searches: int = field(default=0, metadata={
        "help": "sources of each width and p in which edge-popup searches for what is built there (of 16 to 1,024 neurons; ten "
                "take some ten minutes): from which width on a ticket is found, beside that from which on it exists; 0: none"})
    targets: tuple[str, ...] = field(default=(), metadata={
        "help": "random targets by their widths, such as 4-16-30: in how many of --sources sources the ticket that is built "
                "misses each epsilon, for the first delta; none: not measured"})
    most_weights: int = field(default=MOST_WEIGHTS.default, metadata=dict(MOST_WEIGHTS.metadata))
    seed: int = field(default=0, metadata={"help": "seed of the sources"})
    out: str = field(default="law", metadata={
        "help": "directory of law.json, law.png, representation.png and findability.png"})

    def __post_init__(self) -> None:
        if not self.er_p or not self.epsilon:
            raise UsageError("--er-p and --epsilon need one value or more")
        for p in self.er_p:
            check_number("er_p", p, 0.01, 1.0)
        for epsilon in self.epsilon:
            check_number("epsilon", epsilon, 1e-7, 0.5)
        check_count("all_at_once", self.all_at_once, 0)
        check_count("parameters", self.parameters, 20)
        if not self.delta:
            raise UsageError("--delta has no value: give one or more")
        for delta in self.delta:
            check_number("delta", delta, 1e-6, 0.5)
            if delta * self.parameters < 1:
                raise UsageError(f"delta is {delta:g}: of {self.parameters} parameters that is less than one; give more "
                                 "--parameters")
            if self.all_at_once and delta * self.all_at_once < 1:
                raise UsageError(f"delta is {delta:g}: of {self.all_at_once} draws of --all-at-once that is less than one; give "
                                 "more of them, or 0")
        check_count("sources", self.sources, 0)
        check_count("searches", self.searches, 0)
        check_count("attention", self.attention, 0)
        for share in self.locked:
            check_number("locked", share, 0.0, 0.9)
        check_count("most_weights", self.most_weights, 1)
        check_count("seed", self.seed, 0)
        for name in ("er_p", "epsilon", "delta", "locked"):
            values = getattr(self, name)
            if twice := [value for value in values if values.count(value) > 1]:
                raise UsageError(f"{name} has {twice[0]:g} twice, and fits would take it for two measurements: give it once")
        for target in self.targets:
            if not re.fullmatch(r"[1-9]\d{0,8}(-[1-9]\d{0,8})+", target, re.ASCII):
                raise UsageError(f"targets has {target!r:.100}: give widths from the inputs to the outputs, such as 4-16-30")
            if self.targets.count(target) > 1:
                raise UsageError(f"targets has {target} twice: give it once")
        if self.targets and not self.sources:
            raise UsageError("targets are built in --sources sources, and that is 0: give one or more, or leave --targets out")

        for widths in self.target_widths:
            if (weights := sum(before * after for before, after in pairwise(widths))) > MOST_OF_TARGET:
                raise UsageError(f"targets has one of {weights:,} weights: give such of {MOST_OF_TARGET:,} or fewer")

    @property
    def target_widths(self) -> list[tuple[int, ...]]:
        return [tuple(map(int, target.split("-"))) for target in self.targets]

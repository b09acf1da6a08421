"""What differs between settings: paired comparisons, each family of them with Holm's adjustment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose
from typing import TypeVar

import numpy as np

from popup.lab.report.comparison import AXES, Setting, groups, same_but
from popup.lab.report.factors import agree
from popup.lab.report.statistics import Difference, holm, paired
from popup.lab.runs.controls import CONTROLS
from popup.search.methods import TICKET_METHODS
from popup.source.recipe import SPREAD

EQUAL = 0.01  # realised densities that differ by no more of the larger one are called equal: edges are drawn, k is rounded
Case = TypeVar("Case")


@dataclass(frozen=True)
class Contrast:
    """One paired comparison, `first` - `second`; `adjusted` is Holm's p value among all contrasts of its table."""

    first: Setting
    second: Setting
    difference: Difference
    adjusted: float | None

    @property
    def gain(self) -> float:
        """By how much the first side is better."""
        return self.first.measure.up * self.difference.value

    @property
    def apart(self) -> float:
        """By how much of the larger the realised final densities of the two sides differ."""
        low, high = sorted((self.first.final_density, self.second.final_density))
        return 1 - low / high if high else 0.0


@dataclass(frozen=True)
class Advantage:
    """A ticket's accuracy over that of one of its controls, paired over the seeds that both have."""

    setting: Setting
    role: str
    difference: Difference
    adjusted: float | None

    @property
    def gain(self) -> float:
        """By how much the ticket is better."""
        return self.setting.measure.up * self.difference.value


def _adjusted(cases: Sequence[Case], difference: Callable[[Case], Difference | None]) -> list[
        tuple[Case, Difference, float | None]]:
    """The cases that share seeds, with their difference, and its p value by Holm's adjustment over all of them."""
    found = [(case, value) for case in cases if (value := difference(case)) is not None]
    adjusted = iter(holm([value.p_value for _, value in found if value.p_value is not None]))
    return [(case, value, None if value.p_value is None else next(adjusted)) for case, value in found]


def _contrasts(pairs: Iterator[tuple[Setting, Setting]]) -> list[Contrast]:
    return [Contrast(*pair, difference, p_value) for pair, difference, p_value in
            _adjusted(list(pairs), lambda pair: paired(pair[0].accuracies, pair[1].accuracies))]


def best_contrasts(found: Sequence[Setting], factor: str) -> list[Contrast]:
    """Where everything but the `factor` is equal: the best mean against each of the others.

    Which one is best is seen in the same data, so Holm's adjustment counts all pairs of a group, not these alone.
    """
    if not found or factor not in found[0].factors:
        return []
    up = found[0].measure.up
    ranks = {id(one): place for place, one in enumerate(sorted(found, key=lambda setting: -up * setting.accuracy.value))}
    ranked = [sorted(group, key=lambda setting: ranks[id(setting)]) for group in groups(found, (factor,))]  # in one order all
    pairs = {(id(first), id(second)): (first, second) for group in ranked for first, second in combinations(group, 2)
             if not agree(first.factors[factor], second.factors[factor]) and same_but(first, second, (factor,))}
    contrasts = _contrasts(iter(pairs.values()))
    best = {id(group[0]) for group in ranked}
    return [contrast for contrast in contrasts if id(contrast.first) in best]


def change_contrasts(found: Sequence[Setting]) -> list[Contrast]:
    """Where a few things were changed at a time: each change against the usual setting at the same p and k."""
    def pairs() -> Iterator[tuple[Setting, Setting]]:
        for other in found:
            yield from ((other, usual) for usual in found if other.changed and not usual.changed
                        and all(other.factors[name] == usual.factors[name] for name in AXES if name in usual.factors))

    return _contrasts(pairs()) if found and found[0].usual else []


def pooled(contrasts: Sequence[Contrast]) -> Difference | None:
    """One difference of several contrasts: for each seed that all have, the mean of its accuracies on either side."""
    seeds = set.intersection(*(contrast.first.accuracies.keys() & contrast.second.accuracies.keys() for contrast in contrasts))
    first, second = ({seed: float(np.mean([side.accuracies[seed] for side in sides])) for seed in seeds}
                     for sides in zip(*((contrast.first, contrast.second) for contrast in contrasts), strict=True))
    return paired(first, second)


def source_contrasts(found: Sequence[Setting]) -> list[Contrast]:
    """An ER source, of any layerwise density, against the complete one (p = 1) at equal requested final density p k, all else
    equal. What the densities came to is in each contrast's sides."""
    def equal(first: Setting, second: Setting) -> bool:
        source, other = first.config.source, second.config.source
        return isclose(source.er_p * source.k, other.er_p * other.k, rel_tol=1e-9)

    return _contrasts((sparse, dense) for sparse in found for dense in found
                      if sparse.config.source.er_p < 1 and dense.config.source.complete and equal(sparse, dense)
                      and same_but(sparse, dense, (*AXES, *SPREAD)))


def advantages(found: Sequence[Setting], trained: bool) -> list[Advantage]:
    """Each ticket against each of its controls whose weights are trained, or else are frozen. A ticket that is itself drawn at
    random is one of the latter, and no case of theirs."""
    cases = [(setting, role) for setting in found for role, control in CONTROLS.items()
             if control.trained == trained and setting.controls.get(role)
             and (trained or TICKET_METHODS[setting.config.search.method].learns)]
    return [Advantage(*case, difference, p_value) for case, difference, p_value in _adjusted(cases, _advantage)]


def weak_advantages(found: Sequence[Setting]) -> list[Advantage]:
    """Whether tickets are weak ones too: each with its own weights trained, over its mask shuffled and over its mask on other
    weights, both trained as it is."""
    cases = [(setting, role) for setting in found for role in ("shuffled_trained", "redrawn_trained")
             if setting.controls.get(role) and setting.controls.get("ticket_trained")]
    return [Advantage(*case, difference, p_value) for case, difference, p_value in _adjusted(
        cases, lambda case: paired(case[0].control_accuracies("ticket_trained"), case[0].control_accuracies(case[1])))]


def _advantage(case: tuple[Setting, str]) -> Difference | None:
    setting, role = case
    return paired(setting.accuracies, setting.control_accuracies(role))

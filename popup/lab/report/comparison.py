"""The comparison that a sweep is made for: settings, their seeds, their controls, and what differs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose, prod
from typing import Any

import numpy as np

from popup.lab.config import Config
from popup.lab.report.results import Run
from popup.lab.report.statistics import Difference, Mean, holm, mean, paired
from popup.lab.runs.controls import CONTROLS, TICKET, control_config

COMPARED = {"density": "layerwise density", "method": "method"}  # the factors of which a report says which value is best
AXES = ("er_p", "k")  # what accuracy is drawn over
SPARSE = 3  # a grid is sparse if it has so many times fewer settings than its factors' values could make
FIRST = ("dataset", "model", "density", "scope", "method", "weights", "er_p", "k")  # columns in this order, others before


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed only: the ticket's, and by role those of its controls.

    `usual`: where a few things were changed at a time, the value of each factor, but p and k, that most settings have. Then
    only what is changed is worth telling. Empty for a full grid.
    """

    config: Config                        # of its first seed
    factors: dict[str, Any]               # the config's fields that vary in this comparison
    usual: dict[str, Any]
    runs: tuple[Run, ...]
    controls: dict[str, tuple[Run, ...]]

    @property
    def accuracies(self) -> dict[int, float]:
        """The tickets' test accuracy in percent, by seed."""
        return {run.seed: run.accuracy for run in self.runs}

    @property
    def accuracy(self) -> Mean:
        return mean(list(self.accuracies.values()))

    def control(self, role: str) -> Mean | None:
        """The mean accuracy of a control, None if it was not run."""
        runs = self.controls.get(role)
        return mean([run.accuracy for run in runs]) if runs else None

    @property
    def final_density(self) -> float:
        """Realised, mean over seeds."""
        return float(np.mean([run.result["final_density"] for run in self.runs]))

    @property
    def changed(self) -> str:
        """What is not as usual, in words; '' if all is."""
        return _words({name: self.factors[name] for name, value in self.usual.items() if self.factors[name] != value})

    @property
    def columns(self) -> dict[str, str]:
        """What tells it from the others, by the heading of its column."""
        told = {name: show(value) for name, value in self.factors.items() if name not in self.usual}
        return {"changed": self.changed or "nothing", **told} if self.usual else told

    def label(self, without: Sequence[str] = ()) -> str:
        """The factors in words, but for those that are as usual."""
        return _words({name: value for name, value in self.factors.items()
                       if name not in without and (name not in self.usual or value != self.usual[name])})


def measured_on(found: Sequence[Setting]) -> str:
    """What the accuracies of these settings are of: test, validation, or both where some hold data out."""
    return " or ".join(sorted({setting.config.task.evaluated_on for setting in found}))


@dataclass(frozen=True)
class Contrast:
    """One paired comparison, `first` - `second`; `adjusted` is Holm's p value among all contrasts of its table."""

    first: Setting
    second: Setting
    difference: Difference
    adjusted: float | None


def show(value: Any) -> str:
    """A factor's value, short."""
    if isinstance(value, tuple):
        return "-".join(str(part) for part in value) or "own"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(factors: dict[str, Any]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in factors.items())


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The settings among finished runs, sorted by their factors."""
    finished = {run.config.hash(): run for run in runs if run.result is not None}
    tickets: dict[str, list[Run]] = {}
    for run in finished.values():
        if run.config.task.role == TICKET:
            tickets.setdefault(run.config.replace(seed=0).hash(), []).append(run)
    configs = [group[0].config for group in tickets.values()]
    varying = _varying(configs)
    usual = _usual(configs, [name for name in varying if name not in AXES])
    found = [_setting(sorted(group, key=lambda run: run.seed), varying, usual, finished) for group in tickets.values()]
    return sorted(found, key=lambda setting: (setting.changed, [(str(type(value)), value)
                                                                for value in setting.factors.values()]))


def _varying(configs: Sequence[Config]) -> list[str]:
    """The fields in which the configs differ, besides the seed."""
    flats = [config.flat() for config in configs]
    names = [name for name in flats[0] if name != "seed" and len({flat[name] for flat in flats}) > 1] if flats else []
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else -1)


def _usual(configs: Sequence[Config], names: Sequence[str]) -> dict[str, Any]:
    """The commonest value of each factor if the settings are a sparse part of the grid that all values would make, else {}."""
    rows = dict.fromkeys(tuple(config.flat()[name] for name in names) for config in configs)  # in order, as ties go to the first
    counts = [Counter(column) for column in zip(*rows, strict=True)]
    if prod(map(len, counts)) < SPARSE * len(rows):
        return {}
    return {name: count.most_common(1)[0][0] for name, count in zip(names, counts, strict=True)}


def _setting(group: list[Run], varying: Sequence[str], usual: dict[str, Any], finished: dict[str, Run]) -> Setting:
    flat = group[0].config.flat()
    controls = {}
    for role in CONTROLS:
        found = [finished.get(control_config(run.config, role).hash()) for run in group]
        controls[role] = tuple(run for run in found if run is not None)
    return Setting(group[0].config, {name: flat[name] for name in varying}, usual, tuple(group), controls)


def _same_but(first: Setting, second: Setting, names: Sequence[str]) -> bool:
    """Whether two settings agree in every factor outside `names`."""
    return all(first.factors[name] == second.factors[name] for name in first.factors if name not in names)


def _contrasts(pairs: Iterator[tuple[Setting, Setting]]) -> list[Contrast]:
    found = [(first, second, paired(first.accuracies, second.accuracies)) for first, second in pairs]
    found = [(first, second, difference) for first, second, difference in found if difference is not None]
    known = [difference.p_value for *_, difference in found if difference.p_value is not None]
    adjusted = iter(holm(known))
    return [Contrast(first, second, difference, None if difference.p_value is None else next(adjusted))
            for first, second, difference in found]


def best_contrasts(found: Sequence[Setting], factor: str) -> list[Contrast]:
    """Where everything but the `factor` is equal: the best mean against each of the others.

    Which one is best is seen in the same data, so Holm's adjustment counts all pairs of a group, not these alone.
    """
    if not found or factor not in found[0].factors:
        return []
    ranked = [sorted(group, key=lambda setting: -setting.accuracy.value) for group in groups(found, (factor,))]
    contrasts = _contrasts(pair for group in ranked for pair in combinations(group, 2))
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
    """An ER source against the dense one (p = 1) at equal requested final density p k, all else equal."""
    def equal(first: Setting, second: Setting) -> bool:
        source, other = first.config.source, second.config.source
        return isclose(source.er_p * source.k, other.er_p * other.k, rel_tol=1e-9)

    def pairs() -> Iterator[tuple[Setting, Setting]]:
        for first, second in combinations(found, 2):
            sparse, dense = sorted((first, second), key=lambda setting: setting.config.source.er_p)
            if sparse.config.source.er_p < 1 == dense.config.source.er_p and equal(first, second):
                names = ("er_p", "k") if sparse.config.source.density == "uniform" else ("er_p", "k", "density")
                if _same_but(sparse, dense, names) and (names[-1] == "k" or dense.config.source.density == "uniform"):
                    yield sparse, dense

    return _contrasts(pairs())


def groups(found: Sequence[Setting], names: Sequence[str]) -> list[list[Setting]]:
    """The settings, grouped so that within a group only the factors `names` differ."""
    grouped: dict[tuple, list[Setting]] = {}
    for setting in found:
        key = tuple(value for name, value in setting.factors.items() if name not in names)
        grouped.setdefault(key, []).append(setting)
    return list(grouped.values())

"""The comparison that a sweep is made for: settings, their seeds, their controls, and what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose
from typing import Any

import numpy as np

from popup.lab.config import Config
from popup.lab.report.results import Run
from popup.lab.report.statistics import Difference, Mean, holm, mean, paired
from popup.lab.runs.controls import CONTROLS, TICKET, control_config

COMPARED = {"density": "layerwise density", "method": "method"}  # the factors of which a report says which value is best
FIRST = ("dataset", "model", "density", "scope", "method", "weights", "er_p", "k")  # columns in this order, others before


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed only: the ticket's, and by role those of its controls."""

    config: Config                        # of its first seed
    factors: dict[str, Any]               # the config's fields that vary in this comparison
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

    def label(self, without: Sequence[str] = ()) -> str:
        """The factors in words."""
        return ", ".join(f"{name} {show(value)}" for name, value in self.factors.items() if name not in without)


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


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The settings among finished runs, sorted by their factors."""
    finished = {run.config.hash(): run for run in runs if run.result is not None}
    tickets: dict[str, list[Run]] = {}
    for run in finished.values():
        if run.config.task.role == TICKET:
            tickets.setdefault(run.config.replace(seed=0).hash(), []).append(run)
    varying = _varying([group[0].config for group in tickets.values()])
    found = [_setting(sorted(group, key=lambda run: run.seed), varying, finished) for group in tickets.values()]
    return sorted(found, key=lambda setting: [(str(type(value)), value) for value in setting.factors.values()])


def _varying(configs: Sequence[Config]) -> list[str]:
    """The fields in which the configs differ, besides the seed."""
    flats = [config.flat() for config in configs]
    names = [name for name in flats[0] if name != "seed" and len({flat[name] for flat in flats}) > 1] if flats else []
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else -1)


def _setting(group: list[Run], varying: Sequence[str], finished: dict[str, Run]) -> Setting:
    flat = group[0].config.flat()
    controls = {}
    for role in CONTROLS:
        found = [finished.get(control_config(run.config, role).hash()) for run in group]
        controls[role] = tuple(run for run in found if run is not None)
    return Setting(group[0].config, {name: flat[name] for name in varying}, tuple(group), controls)


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

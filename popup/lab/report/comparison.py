"""The comparison that a sweep is made for: settings, their seeds, their controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from popup.lab.config import Config
from popup.lab.report.results import Run
from popup.lab.report.statistics import Mean, mean
from popup.lab.runs.controls import CONTROLS, TICKET, control_config
from popup.source.masks import MASKS

COMPARED = {"density": "layerwise density", "method": "method"}  # the factors of which a report says which value is best
AXES = ("er_p", "k")  # what accuracy is drawn over
SPARSE = 3  # a grid is sparse if it has so many times fewer settings than its factors' values could make
FIRST = ("dataset", "model", "density", "scope", "method", "weights", "er_p", "k")  # columns in this order, others before
SPREAD = ("density", "redistribute")  # how edges are spread over the layers: nothing to a source that has all of them
ANY = "any"  # the value of such a factor there


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
        """The tickets' accuracy in percent, by seed."""
        return {run.seed: run.accuracy for run in self.runs}

    @property
    def accuracy(self) -> Mean:
        return mean(list(self.accuracies.values()))

    def control(self, role: str) -> Mean | None:
        """The mean accuracy of a control, None if it was not run."""
        runs = self.controls.get(role)
        return mean([run.accuracy for run in runs]) if runs else None

    def value(self, name: str) -> Any:
        """What it has for a field of the config."""
        return self.factors[name] if name in self.factors else self.config.flat()[name]

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


def show(value: Any) -> str:
    """A factor's value, short."""
    if isinstance(value, tuple):
        return "-".join(str(part) for part in value) or "own"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(factors: dict[str, Any]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in factors.items())


def complete(config: Config) -> bool:
    """Whether the source has every edge, so that no layerwise density makes another network of it."""
    source = config.source
    return source.er_p == 1 and source.mask in MASKS and (source.redistribute or source.density == "uniform")


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The settings among finished runs, sorted by their factors. Complete sources of one seed are one run, whatever their
    layerwise density is called."""
    finished = {run.config.hash(): run for run in runs if run.result is not None}
    tickets = [run for run in finished.values() if run.config.task.role == TICKET]
    configs = list({run.config.replace(seed=0).hash(): run.config.replace(seed=0) for run in tickets}.values())
    varying = _varying(configs)
    usual = _usual(configs, [name for name in varying if name not in AXES])
    groups: dict[tuple, list[Run]] = {}
    for run in tickets:
        groups.setdefault(tuple(_factors(run.config, varying, usual).values()), []).append(run)
    found = [_setting(group, _factors(group[0].config, varying, usual), usual, finished) for group in groups.values()]
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


def _factors(config: Config, varying: Sequence[str], usual: dict[str, Any]) -> dict[str, Any]:
    flat, whole = config.flat(), complete(config)
    return {name: usual.get(name, ANY) if whole and name in SPREAD else flat[name] for name in varying}


def _setting(group: Sequence[Run], factors: dict[str, Any], usual: dict[str, Any], finished: dict[str, Run]) -> Setting:
    """The setting of its runs; of runs that are the same network the first counts, and the first that has a control."""
    group = sorted(group, key=lambda run: run.seed)
    controls = {}
    for role in CONTROLS:
        found = [finished.get(control_config(run.config, role).hash()) for run in group]
        controls[role] = _one_a_seed([run for run in found if run is not None])
    return Setting(group[0].config, factors, usual, _one_a_seed(group), controls)


def _one_a_seed(runs: Sequence[Run]) -> tuple[Run, ...]:
    return tuple({run.seed: run for run in reversed(runs)}.values())[::-1]


def same_but(first: Setting, second: Setting, names: Sequence[str]) -> bool:
    """Whether two settings agree in every factor outside `names`."""
    return all(first.factors[name] == second.factors[name] for name in first.factors if name not in names)


def groups(found: Sequence[Setting], names: Sequence[str]) -> list[list[Setting]]:
    """The settings, grouped so that within a group only the factors `names` differ."""
    grouped: dict[tuple, list[Setting]] = {}
    for setting in found:
        grouped.setdefault(_key(setting, names), []).append(setting)
    return list(grouped.values())


def panels(found: Sequence[Setting], names: Sequence[str]) -> list[list[Setting]]:
    """`groups` as they are drawn: a complete source belongs to the groups of all layerwise densities, if there are any."""
    grouped = {_key(group[0], names): group for group in groups(found, names)}
    for key in [key for key in grouped if ANY in key]:
        like = [group for other, group in grouped.items() if ANY not in other
                and all(mine in (ANY, theirs) for mine, theirs in zip(key, other, strict=True))]
        for group in like:
            there = {_axes(setting) for setting in group}
            group += [setting for setting in grouped[key] if _axes(setting) not in there]
        if like:
            del grouped[key]
    return list(grouped.values())


def _key(setting: Setting, names: Sequence[str]) -> tuple:
    return tuple(value for name, value in setting.factors.items() if name not in names)


def _axes(setting: Setting) -> tuple:
    return tuple(setting.value(name) for name in AXES)

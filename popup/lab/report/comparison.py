"""The comparison that a sweep is made for: settings, their seeds, their controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from popup.lab.config import Config
from popup.lab.measure import Measure
from popup.lab.report.factors import ANY, agree, asked, even_name, matters, vague
from popup.lab.report.results import Run
from popup.lab.report.statistics import Mean, mean
from popup.lab.runs.controls import CONTROLS, TICKET, control_config
from popup.lab.text import printable
from popup.source.recipe import SPREAD

COMPARED = {"density": "layerwise density", "ticket_density": "layerwise density of tickets",
            "method": "method"}  # the factors of which a report says which value is best
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
        """The tickets' accuracy in percent, or what else their task measures, by seed."""
        return {run.seed: run.accuracy for run in self.runs}

    @property
    def measure(self) -> Measure:
        """What `accuracy` is; the settings of a comparison have the same."""
        return self.runs[0].measure

    @property
    def accuracy(self) -> Mean:
        return mean(list(self.accuracies.values()))

    def control_accuracies(self, role: str) -> dict[int, float]:
        """A control's accuracies in percent, by seed."""
        return {run.seed: run.accuracy for run in self.controls.get(role, ())}

    def control(self, role: str) -> Mean | None:
        """The mean accuracy of a control, None if it was not run."""
        found = self.control_accuracies(role)
        return mean(list(found.values())) if found else None

    def value(self, name: str) -> Any:
        """What it has for a field of the config."""
        return self.factors[name] if name in self.factors else self.config.asked()[name]

    @property
    def final_density(self) -> float:
        """Realised, mean over seeds."""
        return float(np.mean([run.found["final_density"] for run in self.runs]))

    @property
    def ticket_bytes(self) -> float | None:
        """What the tickets take, compressed, mean over seeds; None where one does not say."""
        sizes = [run.ticket_bytes for run in self.runs]
        return None if None in sizes else float(np.mean([size or 0 for size in sizes]))

    @property
    def changed(self) -> str:
        """What is not as usual, in words; '' if all is."""
        return _words({name: self.factors[name] for name, value in self.usual.items() if not agree(self.factors[name], value)})

    @property
    def columns(self) -> dict[str, str]:
        """What tells it from the others, by the heading of its column."""
        told = {name: show(value) for name, value in self.factors.items() if name not in self.usual}
        return {"changed": self.changed or "nothing", **told} if self.usual else told

    def label(self, without: Sequence[str] = ()) -> str:
        """The factors in words, but for those that are as usual."""
        return _words({name: value for name, value in self.factors.items()
                       if name not in without and (name not in self.usual or not agree(value, self.usual[name]))})


def shared_label(first: Setting, second: Setting, without: Sequence[str] = ()) -> str:
    """What two settings that agree share, in words: the value of the one to which a factor matters, nothing of a factor that
    matters to neither."""
    both = {name: second.factors[name] if vague(value) else value for name, value in first.factors.items()}
    return replace(first, factors={name: value for name, value in both.items() if value != ANY}).label(without)


def measured_on(found: Sequence[Setting]) -> str:
    """What the accuracies of these settings are of: test, validation, or both where some hold data out."""
    return " or ".join(sorted({setting.config.task.evaluated_on for setting in found}))


def weights_of(found: Sequence[Setting]) -> str:
    """What the densities of these settings are of, in words: all weights, or where some are in no layer those that are."""
    return "masked weights" if any(run.found.get("dense") for setting in found for run in setting.runs) else "weights"


def show(value: Any) -> str:
    """A factor's value, short."""
    if isinstance(value, tuple):
        return printable(("+" if isinstance(value[0], str) else "-").join(map(str, value))) if value else "none"
    return f"{value:g}" if isinstance(value, float) else printable(value)


def _words(factors: dict[str, Any]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in factors.items())


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The settings among finished runs, sorted by their factors. Complete sources of one seed are one run, whatever their
    layerwise density and their mask are called."""
    finished = {run.config.hash(): run for run in runs if run.result is not None}
    tickets = [run for run in finished.values() if run.config.task.role == TICKET]
    configs = list({run.config.replace(seed=0).hash(): run.config.replace(seed=0) for run in tickets}.values())
    even = even_name(configs)
    varying = _varying(configs, even)
    usual = _usual(configs, [name for name in varying if name not in AXES], even)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in tickets:
        groups.setdefault(tuple(_factors(run.config, varying, usual, even).values()), []).append(run)
    done = {run.config.task.role for run in finished.values()}
    roles = [role for role in CONTROLS if role in done]  # the name of a run takes time
    found = [_setting(group, _factors(group[0].config, varying, usual, even), usual, finished, roles)
             for group in groups.values()]
    return sorted(found, key=lambda setting: (setting.changed, [(str(type(value)), value)
                                                                for value in setting.factors.values()]))


def _varying(configs: Sequence[Config], even: str) -> list[str]:
    """The fields in which the configs differ that they matter to, besides the seed."""
    flats = [(config, asked(config, even)) for config in configs]
    names = [name for name in Config().flat() if name != "seed"
             and len({flat[name] for config, flat in flats if name in SPREAD or matters(config, name)}) > 1
             and not (name == "compute" and _follows(configs))]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else -1)


def _follows(configs: Sequence[Config]) -> bool:
    """Whether how layers compute follows from the rest, as where "auto" was asked for, which comes to "dense" in some configs."""
    return ({config.training.compute for config in configs} <= {"auto", "dense"}
            and len({config.replace(compute="auto").hash() for config in configs}) == len(configs))


def _usual(configs: Sequence[Config], names: Sequence[str], even: str) -> dict[str, Any]:
    """If the settings are a sparse part of the grid that all values would make, the one of them whose factors have the commonest
    values, else {}."""
    rows = list(dict.fromkeys(tuple(_value(config, name, even) for name in names) for config in configs))  # ties go to the first
    counts = [Counter(value for value in column if not vague(value)) for column in zip(*rows, strict=True)]
    if not rows or prod(map(len, counts)) < SPARSE * len(rows):
        return {}
    usual = max(rows, key=lambda row: sum(count[value] for count, value in zip(counts, row, strict=True) if not vague(value)))
    return {name: count.most_common(1)[0][0] if value == ANY else value
            for name, count, value in zip(names, counts, usual, strict=True)}


def _value(config: Config, name: str, even: str) -> Any:
    """What a config has for a field. (A complete source's layerwise density has a name all the same, for `_usual` to find.)"""
    return asked(config, even)[name] if name in SPREAD or matters(config, name) else ANY


def _factors(config: Config, varying: Sequence[str], usual: dict[str, Any], even: str) -> dict[str, Any]:
    flat = asked(config, even)
    return {name: flat[name] if matters(config, name) else usual.get(name, ANY) for name in varying}


def _setting(group: Sequence[Run], factors: dict[str, Any], usual: dict[str, Any], finished: dict[str, Run],
             roles: Sequence[str]) -> Setting:
    """The setting of its runs, with their controls of those `roles`; of runs that are the same network the first counts, and the
    first that has a control."""
    group = sorted(group, key=lambda run: run.seed)
    controls: dict[str, tuple[Run, ...]] = dict.fromkeys(CONTROLS, ())
    for role in roles:
        found = [finished.get(control_config(run.config, role).hash()) for run in group]
        controls[role] = _one_a_seed([run for run in found if run is not None])
    return Setting(group[0].config, factors, usual, _one_a_seed(group), controls)


def _one_a_seed(runs: Sequence[Run]) -> tuple[Run, ...]:
    return tuple({run.seed: run for run in reversed(runs)}.values())[::-1]


def same_but(first: Setting, second: Setting, names: Sequence[str]) -> bool:
    """Whether two settings agree in every factor outside `names`."""
    return _alike(_key(first, names), _key(second, names))


def groups(found: Sequence[Setting], names: Sequence[str]) -> list[list[Setting]]:
    """For each combination of the factors outside `names` the settings that agree with it. One to which a factor does not
    matter is in the groups of all its values; two others of such a group need not agree (`same_but`)."""
    grouped = _grouped(found, names)
    free = [key for key in grouped if any(map(vague, key))]
    return [[setting for other in dict.fromkeys([key, *(grouped if key in free else free)]) if _alike(key, other)
             for setting in grouped[other]] for key in grouped]


def panels(found: Sequence[Setting], names: Sequence[str]) -> list[list[Setting]]:
    """The settings as they are drawn, by their factors outside `names`: one to which a factor does not matter belongs to the
    panels of all its values, if there are any."""
    grouped = _grouped(found, names)
    for key in sorted((key for key in grouped if any(map(vague, key))), key=lambda key: -sum(map(vague, key))):
        like = [group for other, group in grouped.items() if other != key
                and all(mine == theirs or (vague(mine) and agree(mine, theirs)) for mine, theirs in zip(key, other, strict=True))]
        for group in like:
            there = {_place(setting, names) for setting in group}
            group += [setting for setting in grouped[key] if _place(setting, names) not in there]
        if like:
            del grouped[key]
    return list(grouped.values())


def _grouped(found: Sequence[Setting], names: Sequence[str]) -> dict[tuple[Any, ...], list[Setting]]:
    grouped: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in found:
        grouped.setdefault(_key(setting, names), []).append(setting)
    return grouped


def _alike(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return all(map(agree, first, second))


def _key(setting: Setting, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(value for name, value in setting.factors.items() if name not in names)


def _place(setting: Setting, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(setting.value(name) for name in names)

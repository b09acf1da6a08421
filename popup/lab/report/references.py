"""What tickets are drawn beside: the means of controls, with intervals, at the densities that the controls themselves have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from popup.lab.report.comparison import Setting
from popup.lab.report.statistics import Mean, mean

ALIKE = 1.03  # densities within that factor of the lowest of a part belong to it


@dataclass(frozen=True)
class Point:
    """The mean of a control over seeds, and over the settings in which it has about that density."""

    density: float
    mean: Mean


@dataclass(frozen=True)
class Reference:
    """A control's line; `merged`: some of its points are means over sources of several p."""

    role: str
    points: list[Point]
    merged: bool


def references(found: Sequence[Setting], roles: Iterable[str]) -> list[Reference]:
    """The lines of those `roles` that some setting has."""
    made = []
    for role in roles:
        parts = _alike([setting for setting in found if setting.controls.get(role)], role)
        if parts:
            points = [Point(float(np.mean([_density(setting, role) for setting in part])), _mean(part, role)) for part in parts]
            made.append(Reference(role, points, any(len({setting.value("er_p") for setting in part}) > 1 for part in parts)))
    return made


def dense_levels(found: Sequence[Setting]) -> list[Mean]:
    """What trained weights of the dense networks reach, each once: settings of several models, epochs, ... have several."""
    runs = {tuple(run.config.hash() for run in mine): setting for setting in reversed(found)
            if (mine := setting.controls.get("dense_trained"))}
    return [level for setting in reversed(runs.values()) if (level := setting.control("dense_trained"))]


def _density(setting: Setting, role: str) -> float:
    return float(np.mean([run.found["final_density"] for run in setting.controls[role]]))


def _alike(found: Sequence[Setting], role: str) -> list[list[Setting]]:
    """The settings by their control's density, each control once."""
    parts: list[list[Setting]] = []
    seen = set()
    for setting in sorted(found, key=lambda setting: _density(setting, role)):
        runs = tuple(run.config.hash() for run in setting.controls[role])
        if runs in seen:  # one run may be the control of several settings
            continue
        seen.add(runs)
        if parts and _density(setting, role) < ALIKE * _density(parts[-1][0], role):
            parts[-1].append(setting)
        else:
            parts.append([setting])
    return parts


def _mean(part: Sequence[Setting], role: str) -> Mean:
    """The mean over the seeds that all settings of a part have, of each seed's mean over the settings; over the settings alone if
    they share none."""
    found = [{run.seed: run.accuracy for run in setting.controls[role]} for setting in part]
    shared = set.intersection(*map(set, found))
    if not shared:
        return Mean(float(np.mean([value for one in found for value in one.values()])), None, 1)
    return mean([float(np.mean([one[seed] for one in found])) for seed in sorted(shared)])

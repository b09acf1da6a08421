"""python run.py recipes: the named settings, each with where it is from; and the hint that one fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from popup.lab.commands.arguments import parse_as
from popup.lab.config import Config
from popup.lab.networks import Models
from popup.lab.recipes import DEFAULT, RECIPES, fitting, unasked
from popup.lab.text import printable


@dataclass(frozen=True)
class RecipesOptions:
    """List the recipes: what each sets, and where it is from."""


def recipes(arguments: Sequence[str], models: Models) -> int:
    """python run.py recipes"""
    parse_as(RecipesOptions, arguments, "recipes")
    for name, found in RECIPES.items():
        options = " ".join(f"--{field.replace('_', '-')} {_shown(value)}" for field, value in found.settings.items())
        print(f"{name}\n    {options or 'the defaults'}\n    from {found.origin}")
    return 0


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def hint(configs: Sequence[Config]) -> None:
    """Say which recipes fit a run that was given none: the defaults are those of another model, or of a recipe that its data
    have without being asked."""
    for dataset in dict.fromkeys(config.task.dataset for config in configs):
        if name := unasked(dataset):
            print(f"{printable(dataset)} has the settings of --recipe {name} but for what is given")
            return
    for task in dict.fromkeys((config.task.model, config.task.dataset) for config in configs):
        names = [name for name in fitting(*task) if name != DEFAULT]
        if names:
            model, dataset = map(printable, task)
            print(f"{model} on {dataset} has recipes that were not asked for: --recipe {' or '.join(names)}")

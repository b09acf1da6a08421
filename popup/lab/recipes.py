"""Recipes: settings that are known to go well together on a model and a data set, by name, each with where it is from.

`--recipe NAME` only changes the defaults of the other options: what is given beside it wins, and a run's record and hash
hold the settings that came out, never the recipe's name. A new recipe is one line of RECIPES.

Data of a kind that the fields' own defaults are of no use for, such as texts, have a recipe whose settings are their defaults
without being asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from popup.errors import check_name
from popup.lab.config import Config

DEFAULT = "mlp_digits"  # the one whose settings the fields of Config have anyhow
PUBLISHED = ("training settings (not the scale of the weights) of Ramanujan et al., CVPR 2020: "
             "github.com/allenai/hidden-networks")
CIFAR = {"dataset": "cifar10", "augment": ("crop", "flip"), "label_smoothing": 0.0, "lr": 0.1, "momentum": 0.9}


@dataclass(frozen=True)
class NamedRecipe:
    """`settings`: the fields of Config that it is about, the others keep their defaults. `origin`: the paper or study that
    found them. `unasked`: the kind of data set (before the colon of its name) whose runs have them without being asked."""

    origin: str
    settings: dict[str, Any] = field(default_factory=dict)
    unasked: str = ""

    def config(self) -> Config:
        """The config of a run by this recipe alone."""
        return Config().replace(**self.settings)


CONV4 = {"model": "conv4", "dataset": "cifar10", "epochs": 8, "batch_size": 128, "lr": 0.4, "augment": ("flip",),
         "label_smoothing": 0.0, "gain": 1.1, "anneal": "cubic", "k_start": 1.0, "anneal_until": 0.8}
MNIST = {"dataset": "mnist", "batch_size": 128, "density": "erk", "lr": 0.1, "label_smoothing": 0.1, "weight_decay": 5e-4}

RECIPES: dict[str, NamedRecipe] = {
    DEFAULT: NamedRecipe("the defaults of run.py; docs/accuracy.md, Digits"),
    "conv4_cifar10": NamedRecipe("docs/accuracy.md, Conv-4", CONV4),
    "conv4_few_edges": NamedRecipe("docs/accuracy.md, At 2.91% of the weights", CONV4 | {
        "epochs": 20, "density": "balanced", "scope": "global", "optimizer": "adam", "lr": 0.003}),
    "lenet_300_100": NamedRecipe("docs/accuracy.md, MNIST", MNIST | {"model": "lenet_300_100", "epochs": 5}),
    "lenet5": NamedRecipe("docs/accuracy.md, MNIST", MNIST | {"model": "lenet5", "epochs": 3}),
    "edge_popup_conv4_cifar10": NamedRecipe(f"{PUBLISHED} configs/smallscale/conv4/conv4_usc_unsigned.yml", CIFAR | {
        "model": "conv4", "epochs": 100, "batch_size": 128, "weight_decay": 1e-4}),
    "edge_popup_resnet18_cifar10": NamedRecipe(f"{PUBLISHED} configs/smallscale/resnet18/resnet18-usc-unsigned.yaml", CIFAR | {
        "model": "resnet18", "epochs": 100, "batch_size": 256, "weight_decay": 5e-4}),
    "gpt_text": NamedRecipe("docs/accuracy.md, A language model", {
        "model": "gpt", "dataset": "text:", "epochs": 1, "batch_size": 16, "optimizer": "adam", "lr": 0.02,
        "label_smoothing": 0.0, "gain": 1.0, "weight_lr": 0.1}, unasked="text"),
}


def recipe(name: str) -> NamedRecipe:
    """The recipe of a name; a UsageError for one that is not known."""
    return RECIPES[check_name("recipe", name, RECIPES)]


def fitting(model: str, dataset: str) -> list[str]:
    """The names of the recipes for a model and a data set."""
    return [name for name, found in RECIPES.items()
            if (found.config().task.model, found.config().task.dataset) == (model, dataset)]


def unasked(dataset: str) -> str | None:
    """The name of the recipe that runs on that data set have without being asked, None if there is none."""
    kind, colon, _ = dataset.partition(":")
    return next((name for name, found in RECIPES.items() if colon and found.unasked == kind), None)

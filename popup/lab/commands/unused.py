"""What is asked for on the command line and would do nothing: refused, by the option that the user wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from popup.errors import UsageError, check_name
from popup.lab.cluster import Cluster
from popup.lab.config import Config
from popup.lab.runs.controls import CONTROLS
from popup.search.methods import METHODS
from popup.source.densities import DENSITIES
from popup.source.masks import COMPUTED, MASKS
from popup.source.recipe import GIVEN
from popup.source.weights import WEIGHTS

SLURM_ONLY = ("partition", "sbatch")
OF_STEPS = ("lr", "optimizer", "momentum", "weight_decay", "warmup")  # of the optimiser, where one is at work
ALONE = ("none", "default")  # words of --controls beside which no other makes sense


def option(name: str) -> str:
    """A field as the command line has it."""
    return name.replace("_", "-")


def given_options(arguments: Sequence[str]) -> frozenset[str]:
    """The fields that the command line names itself: their values are no default's and no recipe's."""
    names = {word.split("=")[0].lstrip("-").replace("-", "_") for word in arguments if word.startswith("--")}
    return frozenset(names | {name.removeprefix("no_") for name in names})


def check_together(given: frozenset[str], values: Mapping[str, Any]) -> None:
    """A UsageError for options that exclude each other, or that are for something else than what is asked for."""
    if {"k", "final_density"} <= given:
        raise UsageError("--k and --final-density exclude each other: give one of them")
    if "final_density" in given and not values["final_density"]:  # --k would be its default's, unasked
        raise UsageError("--final-density has no value: give one or more")
    for name in values["method"]:
        check_name("method", name, METHODS)
    _check_not_given(values)
    if twice := [name for name in values["augment"] if values["augment"].count(name) > 1]:
        raise UsageError(f"augment is {' '.join(values['augment'])}: {twice[0]} is there twice, and is done once: give it once")
    controls = values["controls"]
    if others := [name for name in controls if name not in ALONE] if set(controls) & set(ALONE) else []:
        word = next(name for name in controls if name in ALONE)
        raise UsageError(f"controls are {' '.join(controls)}: {word} excludes {', '.join(others)}; give one or the other")
    _check_cluster(given, values["cluster"], values["plan_only"])


def _check_not_given(values: Mapping[str, Any]) -> None:
    """A UsageError for a name that is unknown, offering none that only popup.attach takes."""
    for kind, allowed in (("density", DENSITIES), ("mask", (*MASKS, *COMPUTED)), ("weights", WEIGHTS)):
        for name in values[kind]:
            if name != GIVEN:
                check_name(kind, name, allowed)
    if GIVEN in values["density"]:
        raise UsageError("density is 'given', and the command line takes no density of each layer: call popup.attach(net, "
                         f"density={{layer name: p_l}}), or use {', '.join(DENSITIES)}")


def _check_cluster(given: frozenset[str], cluster: str, plan_only: bool) -> None:
    if cluster != "none" and plan_only:
        raise UsageError(f"--plan-only and --cluster {cluster} exclude each other, as the cluster's jobs are workers on a plan "
                         "of their own: give one of them")
    unused = [part.name for part in dataclasses.fields(Cluster) if part.name != "cluster"] if cluster == "none" else \
        SLURM_ONLY if cluster == "local" else []
    if found := [name for name in unused if name in given]:
        where = "without --cluster" if cluster == "none" else f"with --cluster {cluster}"
        raise UsageError(f"--{option(found[0])} does nothing {where}: leave it out, or give --cluster slurm")


def check_matters(configs: Sequence[Config], given: frozenset[str], changed: set[str]) -> None:
    """A UsageError for settings that no config of the grid uses: of the search those that are `changed` from what they are
    without being asked for, of the source those that are `given`."""
    if not configs:
        return
    if unused := sorted(changed.difference(*(config.search.used() for config in configs))):
        methods = [name for name, method in METHODS.items() if unused[0] in method.uses]
        remedy = {"floor": "--scope global", "coat_rule": "--method coats and --coats 2 or more",
                  **dict.fromkeys(("k_start", "anneal_until"), "--anneal linear, cubic or geometric")}
        raise UsageError(f"--{option(unused[0])} does not matter here: leave it out, or search with "
                         f"{remedy.get(unused[0]) or '--method ' + ' or '.join(methods)}")
    if "redistribute" in given and all(config.source.density == "uniform" for config in configs):  # so with --mask snip
        raise UsageError("--no-redistribute does not matter here, where no layer's density can pass 1: leave it out, or give a "
                         "--density other than uniform, with --mask bernoulli or exact")
    for config in configs:
        start, k = config.search.k_start, config.source.k
        if "k_start" in config.search.used() and start < k:
            raise UsageError(f"k_start is {start:g} and k is {k:g}: annealing comes down from k_start to k: give a --k-start in "
                             f"[{k:g}, 1], or a smaller --{'final-density' if 'final_density' in given else 'k'}")


def unused_note(given: frozenset[str], roles: Sequence[str], methods: Collection[str]) -> str:
    """A line on what is part of a run's name, so that a run which has it can go on, and does nothing here; else empty."""
    idle = [name for name in OF_STEPS if name in given]
    if idle and not any(METHODS[name].learns for name in methods) and not any(CONTROLS[role].trained for role in roles):
        return f"--{option(idle[0])} does nothing here: neither scores learn, by --method {' '.join(methods)}, nor weights"
    if "weight_lr" in given and not any(CONTROLS[role].trained for role in roles):
        return "--weight-lr does nothing here: it is for controls that train weights, such as --controls random_trained"
    if "finetune_epochs" in given and not any(CONTROLS[role].prunes for role in roles):
        return "--finetune-epochs does nothing here: it is for controls that prune, such as --controls magnitude_trained"
    return ""

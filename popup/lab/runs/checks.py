"""What can be told of a run before anything is built for it, and of runs that were finished before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config, TaskSettings
from popup.lab.identity import differing, listed
from popup.lab.networks import find_builder, is_own, outline
from popup.lab.runs.anew import check_anew
from popup.lab.runs.controls import TICKET
from popup.lab.runs.grid import counted
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.logs import check_packages
from popup.lab.runs.plain import build, network_fingerprint
from popup.lab.training.attachment import may_be_sparse, paying_layers, settled_compute
from popup.lab.training.checkpoint import recorded_of
from popup.products.numba_kernels import NumbaKernels

COUNTS = "names that begin with _ do not count: docs/own-network.md"
WORTH_TELLING = 100_000  # entries of layers: smaller ones gain little, with few images a step nothing


def check(laboratory: Laboratory, config: Config) -> None:
    """A UsageError if runs like this cannot be done here, whatever their source and search: what `check_place` tells, or that
    the network is not for the data, of which an outline is built at most, once for all of them."""
    task, training = replace(config.task, role=TICKET), config.training
    if (task, training) in laboratory.checked:
        return
    check_place(laboratory, config)
    check_anew(laboratory, config)
    _outline_of(laboratory, config)
    laboratory.checked.add((task, training))


def settled(laboratory: Laboratory, config: Config) -> Config:
    """The config with what is left to a rule settled where it comes to what runs did before there was that rule."""
    if config.training.compute != "auto":
        return config
    if not may_be_sparse(config, laboratory.device):
        return config.replace(compute="dense")
    return settled_compute(_outline_of(laboratory, config), config, laboratory.device)


def without_numba(laboratory: Laboratory, configs: Sequence[Config]) -> str:
    """A line on what numba would do for runs that leave to a rule how they compute; empty where it is here, or does nothing."""
    sparsest: dict[TaskSettings, Config] = {}
    for config in configs:
        if config.task not in sparsest or config.source.er_p < sparsest[config.task].source.er_p:
            sparsest[config.task] = config
    for config in sparsest.values():
        if config.training.compute != "auto" or not may_be_sparse(config, laboratory.device):
            continue
        net = _outline_of(laboratory, config)
        now, then = (paying_layers(net, config, laboratory.device, kernels) for kernels in ("", NumbaKernels.name))
        if len(then) > len(now) and sum(layer.entries for layer in then) >= WORTH_TELLING:
            return (f"faster with numba: at p = {config.source.er_p:g} {counted(len(then), 'layer')} would compute on the edges "
                    f"alone ({len(now)} now): pip install numba; tickets are others then")
    return ""


def _outline_of(laboratory: Laboratory, config: Config) -> nn.Module:
    """The plain network of a config's task, without memory if it can be, made once. A UsageError if it cannot be built."""
    task, data = replace(config.task, role=TICKET), laboratory.data(config)
    check_anew(laboratory, config)  # which is the outline's place too of a user's function: it may keep what it makes
    if task not in laboratory.outlines:
        found = outline(laboratory.models, config, data.image, data.classes)
        laboratory.outlines[task] = build(laboratory, config) if found is None else found
    return laboratory.outlines[task]


def check_place(laboratory: Laboratory, config: Config) -> None:
    """A UsageError for all that can be told without a network: the data or the builder are not there, a log's package is
    missing, these processes cannot deal the batch."""
    training = config.training
    check_packages(laboratory.machine.log)
    if training.compile:
        laboratory.ranks.check_alone("--compile")
    find_builder(laboratory.models, config.task.model)  # a name that is wrong is told before data are loaded
    data = laboratory.data(config)
    laboratory.ranks.check_batch(min(training.batch_size, len(data.train[0])), training.accumulate)


def check_finished(laboratory: Laboratory, configs: Sequence[Config]) -> None:
    """A UsageError if some of `configs` were finished, or begun and not finished, on other images than their data set has now, or
    by another network than the user's function builds now."""
    known = [(config, *recorded) for config in configs if (recorded := _recorded(laboratory, config))]
    for dataset in {config.task.dataset for config, *_ in known}:
        _check_same(laboratory, f"saw other images than {dataset} has now",
                    [(path, record.get("data_fingerprint"), laboratory.data(config).fingerprint) for config, path, record in known
                     if config.task.dataset == dataset])
    own = [(config, path, record) for config, path, record in known if is_own(config.task.model)]
    now: dict[tuple[TaskSettings, int], str] = {}
    for task, seed, config in ((replace(config.task, role=TICKET), config.source.seed, config) for config, *_ in own):
        if (task, seed) not in now:
            check_anew(laboratory, config)
            now[task, seed] = network_fingerprint(laboratory, config, build(laboratory, config))
    for model in {config.task.model for config, *_ in own}:
        _check_same(laboratory, f"had another network than {model} builds now",
                    [(path, record.get("network_fingerprint"), now[replace(config.task, role=TICKET), config.source.seed])
                     for config, path, record in own if config.task.model == model], COUNTS)


def _recorded(laboratory: Laboratory, config: Config) -> tuple[Path, Mapping[str, Any]] | None:
    """The directory of a run that was finished, or the checkpoint of one that was begun, and what it says of its data and
    network."""
    directory = laboratory.directory(config)
    if result := directory.result():
        return directory.path, result
    return (directory.checkpoint, found) if (found := recorded_of(directory.checkpoint)) else None


def _check_same(laboratory: Laboratory, words: str, cases: Sequence[tuple[Path, str | None, str]], counts: str = "") -> None:
    """A UsageError that says so in `words` if some of the `cases` (place, what it records, what that is now) differ; of what has
    attributes with these, and what `counts`."""
    other = {path: found for path, then, now in cases if (found := differing(then or "", now))}
    if other:
        kind = "begun run" if any(path.suffix for path in other) else "finished run"
        path, found = next(iter(other.items()))
        by = f", by its {listed(found)} ({counts})" if counts else ""
        raise UsageError(f"{counted(len(other), kind)} in {laboratory.out} ({path}, ...) {words}{by}: name another --out, or "
                         "remove what is there")

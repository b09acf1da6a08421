"""One run from config to finished directory: a search for a ticket, or one of its controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config, TaskSettings
from popup.lab.data.datasets import DataRequest, Dataset, load_dataset
from popup.lab.data.validation import hold_out
from popup.lab.machine import Machine, PeakMemory, hardware, keep_freed_memory, versions
from popup.lab.networks import Models, build_network, find_builder, fingerprint, is_own, outline
from popup.lab.precision import Precision
from popup.lab.runs.controls import CONTROLS, TICKET, Subnetwork, run_control
from popup.lab.runs.logs import check_packages, opened
from popup.lab.runs.record import RunDirectory
from popup.lab.training.attachment import computed_edges
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.diagnostics import diagnose
from popup.lab.training.fit import fit
from popup.lab.training.randomness import seeded
from popup.lab.training.ranks import Ranks
from popup.lab.training.state import Metrics
from popup.lab.training.stop import RunFailed, Stop
from popup.search.attach import attach_recipe
from popup.search.network import LayerDensity, densities, density_row
from popup.source.layers import find_layers
from popup.source.recipe import draw_source
from popup.ticket.file import TicketError
from popup.ticket.proof import Proof
from popup.ticket.ticket import extract, load

Result = dict[str, Any]


class Laboratory:
    """What runs share: the models, the machine, the data sets that were loaded, the directory of results."""

    def __init__(self, models: Models, machine: Machine, out: Path, stop: Stop | None = None, ranks: Ranks | None = None,
                 device: torch.device | None = None) -> None:
        self.models, self.machine, self.out, self.stop = models, machine, out, stop or Stop()
        self.ranks = ranks or Ranks()
        self.device = device or machine.torch_device()
        self._data: dict[tuple[str, int, float], Dataset] = {}
        self._edges: dict[Config, dict[str, np.ndarray] | None] = {}
        self._checked: set[tuple] = set()
        self._fingerprints: dict[TaskSettings, str] = {}

    def data(self, config: Config) -> Dataset:
        """The config's data set, loaded once; from here on torch uses as many threads as a run on it may."""
        task = config.task
        wanted = task.dataset, task.image_size, task.validation
        if wanted not in self._data:
            machine = self.machine
            request = DataRequest(machine.data_directory, machine.download, task.image_size, machine.streaming,
                                  machine.data_memory(self.device), machine.decoders or machine.cores)
            data = load_dataset(task.dataset, request)
            self._data[wanted] = hold_out(data, task.validation) if task.validation else data
        keep_freed_memory()
        torch.set_num_threads(self.machine.threads_for(self._data[wanted].train[0].nbytes))
        return self._data[wanted]

    def directory(self, config: Config) -> RunDirectory:
        """Where the config's run is, or will be."""
        return RunDirectory(self.out, config, self.ranks.first)

    def check(self, config: Config) -> None:
        """A UsageError if runs like this cannot be done here, whatever their source and search: the data or the network are not
        there or not for one another, a log's package is missing, these processes cannot deal the batch."""
        task, training = replace(config.task, role=TICKET), config.training
        if (task, training) in self._checked:
            return
        check_packages(self.machine.log)
        if training.compile:
            self.ranks.check_alone("--compile")
        find_builder(self.models, task.model)  # a name that is wrong is told before data are loaded
        data = self.data(config)
        self.ranks.check_batch(min(training.batch_size, len(data.train[0])), training.accumulate)
        if outline(self.models, config, data.image, data.classes) is None:
            self.network(config)
        self._checked.add((task, training))

    def check_finished(self, configs: Sequence[Config]) -> None:
        """A UsageError if some of `configs`, of one data set, were finished on other images than it has now, or by another
        network than the user's function builds now."""
        done = [(config, result) for config in configs if (result := self.directory(config).result())]
        if not done:
            return
        images, task = self.data(configs[0]).fingerprint, configs[0].task
        self._check_same(f"saw other images than {task.dataset} has now",
                         [(result, "data_fingerprint", images) for _, result in done])
        for model in {config.task.model for config, _ in done if is_own(config.task.model)}:
            self._check_same(f"had another network than {model} builds now",
                             [(result, "network_fingerprint", self.network_fingerprint(config)) for config, result in done
                              if config.task.model == model])

    def _check_same(self, words: str, cases: Sequence[tuple[Result, str, str]]) -> None:
        """A UsageError that says so in `words` if some of the `cases` (result, what it records, what that is now) differ. What
        is not recorded, or not known now, does not."""
        other = [result for result, name, now in cases if now and (result.get(name) or now) != now]
        if other:
            raise UsageError(f"{len(other)} finished run{'s' * (len(other) > 1)} in {self.out} ({other[0]['hash']}, ...) {words}"
                             ": name another --out, or remove what is there")

    def network_fingerprint(self, config: Config) -> str:
        """What tells the network of a function of the user's from another of the same name; of other models it is empty."""
        task = replace(config.task, role=TICKET)
        if task not in self._fingerprints:
            self._fingerprints[task] = fingerprint(self.network(config)) if is_own(task.model) else ""
        return self._fingerprints[task]

    def network(self, config: Config) -> nn.Module:
        """The plain network of a config, on the device."""
        data = self.data(config)
        with seeded(config.source.seed, "network", torch.device("cpu")):  # for what is no layer's (a class token)
            return build_network(self.models, config, data.image, data.classes).to(self.device)

    def attached(self, config: Config) -> nn.Module:
        """The source of a config with its first scores, on the device; what can be refused is refused here."""
        self.check(config)
        net = self.network(config)
        return attach_recipe(net, config.source, config.search, edges=self.edges(config, net)).to(self.device)

    def edges(self, config: Config, net: nn.Module) -> dict[str, np.ndarray] | None:
        """The edges of a computed mask in the plain network of `config`; the last are kept, as a run is tried first."""
        if config not in self._edges:
            self._edges = {config: computed_edges(net, config, self.data(config).train)}
        return self._edges[config]

    def run(self, config: Config, on_epoch: Callable[[Metrics], None] = lambda metrics: None) -> Result:
        """Do the run of a config and leave its directory finished; returns what result.json holds."""
        directory = self.directory(config)

        memory, began = PeakMemory(self.device), time.perf_counter()
        checkpoints = Checkpoints(directory.checkpoint, config, self.stop, self.machine.checkpoint_seconds,
                                  self.data(config).fingerprint)
        search = _search if config.task.role == TICKET else _control
        with opened(self.machine.log, directory) as log:
            def record(metrics: Metrics) -> None:
                for tell in (directory.add_metrics, log, on_epoch):
                    tell(metrics)

            found = search(self, config, directory, record, checkpoints)
        result = {**describe(config, found), **_describe_data(self.data(config)),
                  "seconds": checkpoints.before + time.perf_counter() - began, "peak_memory": memory.peak(),
                  "threads": torch.get_num_threads(), "ranks": self.ranks.count, "hardware": hardware(self.device),
                  "versions": versions(), "network_fingerprint": self.network_fingerprint(config)}
        directory.finish(result)
        checkpoints.remove()
        return result


Found = tuple[list[Metrics], list[LayerDensity], Proof | None, dict[str, Any], str]  # last the precision: fp32 or bf16


def _search(laboratory: Laboratory, config: Config, directory: RunDirectory, record: Callable[[Metrics], None],
            checkpoints: Checkpoints) -> Found:
    """Find and save the ticket. What is diagnosed is the one that the file holds, its source drawn again from that."""
    net, data = laboratory.attached(config), laboratory.data(config)
    directory.start()
    outcome = fit(net, data.train, data.test, config, record, checkpoints, laboratory.ranks)
    if not laboratory.ranks.first:
        return outcome.history, densities(net), outcome.proof, {}, outcome.precision
    about = {"task": asdict(config.task), "test_accuracy": outcome.test_accuracy, "data": data.title,
             "precision": outcome.precision, "evaluated_on": data.evaluated_on, "image": data.image, "classes": data.classes,
             "normalise": outcome.normalise.record()}
    extract(net, about).save(directory.ticket)
    try:
        diagnostics = diagnose(load(directory.ticket), laboratory.network(config), data.image)
    except TicketError as error:
        raise RunFailed(f"the ticket that it has saved cannot be used again: {error}") from None
    return outcome.history, densities(net), outcome.proof, diagnostics, outcome.precision


def _control(laboratory: Laboratory, config: Config, directory: RunDirectory, record: Callable[[Metrics], None],
             checkpoints: Checkpoints) -> Found:
    """Evaluate, or train and evaluate, a control of a ticket that was found before."""
    net, data = laboratory.network(config), laboratory.data(config)
    directory.start()
    start, precision = _subnetwork(laboratory, config, net), Precision.of(net, config.training.precision)
    history, layers = run_control(net, data, config, start, record, checkpoints, laboratory.ranks)
    rows = [density_row(before.layer, before.p_l, len(before.edges), len(after.edges))
            for before, after in zip(start.sources, layers, strict=True)]
    return history, rows, None, {}, precision.name


def _subnetwork(laboratory: Laboratory, config: Config, net: nn.Module) -> Subnetwork:
    """The control's source, and the mask of its ticket where it needs one (else all edges)."""
    control = CONTROLS[config.task.role]
    layers = find_layers(net, config.source.searches_biases)
    if not control.needs_ticket:
        sources = draw_source(config.source, layers, edges=laboratory.edges(config, net))
        return Subnetwork(config.source, sources, [source.values != 0 for source in sources])
    path = laboratory.directory(config.replace(role=TICKET)).ticket
    if not path.exists():
        raise RunFailed(f"the file of its ticket is gone, {path}: remove that directory, then plan or start the grid again, "
                        "which finds the ticket anew")
    ticket = load(path)
    sources = [layer.effective(ticket.recipe, ticket.method) for layer in ticket.layers]
    return Subnetwork(ticket.recipe, sources, [layer.selected for layer in ticket.layers], ticket.method.values)


def _describe_data(data: Dataset) -> Result:
    """Which data they were, and whether accuracies are of the test data or of a held-out part of the training data."""
    return {"data": data.title, "data_fingerprint": data.fingerprint, "evaluated_on": data.evaluated_on,
            "images": [len(data.train[0]), len(data.test[0])]}


def describe(config: Config, found: Found) -> Result:
    """What a run has found, as result.json holds it: accuracies in percent, of the last epoch; densities and precision as
    realised."""
    history, densities_found, proof, diagnostics, precision = found
    layers = [asdict(row) for row in densities_found]
    entries, edges, kept = (sum(row[column] for row in layers) for column in ("entries", "edges", "kept"))
    return {
        "hash": config.hash(), "role": config.task.role, "test_accuracy": history[-1]["test_accuracy"],
        "test_loss": history[-1]["test_loss"], "train_loss": history[-1].get("train_loss"), "epochs": history[-1]["epoch"],
        "realised_precision": precision, "entries": entries, "edges": edges, "kept": kept, "edge_density": edges / entries,
        "final_density": kept / entries, "layers": layers, "diagnostics": diagnostics,
        "proof": proof and {**asdict(proof), "holds": proof.holds},
    }

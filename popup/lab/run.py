"""One run from config to finished directory: draw the source, search, prove, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from popup.errors import UsageError, check_name
from popup.lab.config import Config
from popup.lab.datasets import DATASETS, Dataset
from popup.lab.machine import Machine, hardware, versions
from popup.lab.plots import plot_training
from popup.lab.record import RunDirectory
from popup.lab.training import Outcome, fit
from popup.search.attach import attach_recipe
from popup.search.network import densities
from popup.ticket.ticket import extract

Builder = Callable[..., nn.Module]  # (image [channels, height, width], classes, widths=...) -> network
Models = Mapping[str, Builder]


def build_network(models: Models, config: Config, image: Sequence[int], classes: int) -> nn.Module:
    """The plain network of a config for images [channels, height, width]."""
    builder = models[check_name("model", config.task.model, models)]
    widths = config.task.widths
    try:
        return builder(image, classes, widths) if widths else builder(image, classes)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"model {config.task.model!r} cannot be built for images {list(image)}"
                         f"{f' with widths {list(widths)}' if widths else ''}: {reason}") from None


def load_dataset(config: Config) -> Dataset:
    """The data set of a config."""
    return DATASETS[check_name("dataset", config.task.dataset, DATASETS)]()


def prepare(models: Models, config: Config, machine: Machine) -> tuple[nn.Module, Dataset]:
    """The attached network on its device, and the data; everything that can be refused is refused here."""
    check_name("model", config.task.model, models)
    data, device = load_dataset(config), machine.torch_device()
    torch.set_num_threads(machine.threads_for(data.train[0].nbytes))
    net = attach_recipe(build_network(models, config, data.image, data.classes), config.source, config.search)
    return net.to(device), data


def execute(net: nn.Module, data: Dataset, directory: RunDirectory,
            on_epoch: Callable[[dict[str, Any]], None] = lambda metrics: None) -> tuple[Outcome, dict[str, Any]]:
    """Run the search in `net` and leave a finished directory; returns the outcome and its record."""
    directory.start()
    began = time.perf_counter()

    def record(metrics: dict[str, Any]) -> None:
        directory.add_metrics(metrics)
        on_epoch(metrics)

    outcome = fit(net, data.train, data.test, directory.config, record)
    seconds = time.perf_counter() - began
    about = {"task": asdict(directory.config.task), "test_accuracy": outcome.test_accuracy,
             "image": data.image, "classes": data.classes}
    extract(net, about).save(directory.ticket)
    plot_training(directory.picture, outcome.history, directory.config, data.title)
    result = describe(net, outcome, seconds, directory.config)
    directory.finish(result)
    return outcome, result


def describe(net: nn.Module, outcome: Outcome, seconds: float, config: Config) -> dict[str, Any]:
    """What result.json holds. Accuracies in percent, of the last epoch; densities as realised."""
    layers = [asdict(row) for row in densities(net)]
    entries, edges, kept = (sum(row[column] for row in layers) for column in ("entries", "edges", "kept"))
    return {
        "hash": config.hash(), "test_accuracy": outcome.test_accuracy, "test_loss": outcome.history[-1]["test_loss"],
        "train_loss": outcome.history[-1]["train_loss"], "epochs": len(outcome.history),
        "entries": entries, "edges": edges, "kept": kept,
        "edge_density": edges / entries, "final_density": kept / entries, "layers": layers,
        "proof": {**asdict(outcome.proof), "holds": outcome.proof.holds},
        "seconds": seconds, "threads": torch.get_num_threads(),
        "hardware": hardware(next(net.parameters()).device), "versions": versions(),
    }


def run_directory(out: str, config: Config) -> RunDirectory:
    """Where the config's run is, or will be."""
    return RunDirectory(Path(out), config)

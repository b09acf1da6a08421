"""What the runs of one process share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from popup.lab.config import Config, TaskSettings, TrainingSettings
from popup.lab.data.datasets import DataRequest, Dataset, load_dataset
from popup.lab.data.validation import hold_out
from popup.lab.machine import Machine, keep_freed_memory
from popup.lab.networks import Models
from popup.lab.runs.directory import RunDirectory
from popup.lab.text import printable
from popup.lab.training.batches import Normalise
from popup.lab.training.ranks import Ranks
from popup.lab.training.stop import Stop


@dataclass(frozen=True)
class BuiltAnew:
    """Of the networks that a user's function builds: the names of what differs from call to call and changes nothing
    (popup/lab/identity.py), and of what differs `by_seed`."""

    varying: frozenset[str] = frozenset()
    by_seed: frozenset[str] = frozenset()


class Laboratory:
    """What runs share: the models, the machine, its ranks, the directory of results, the data sets that were loaded, the
    networks of tasks without memory, what was `checked` before, and the tasks whose networks are `built_anew` at each call,
    once that was tried. It does no run: those go one way, as flow.py says."""

    def __init__(self, models: Models, machine: Machine, out: Path, stop: Stop | None = None, ranks: Ranks | None = None,
                 device: torch.device | None = None) -> None:
        self.models, self.machine, self.out, self.stop = models, machine, out, stop or Stop()
        self.ranks = ranks or Ranks()
        self.device = device or machine.torch_device()
        self.outlines: dict[TaskSettings, nn.Module] = {}
        self.checked: set[tuple[TaskSettings, TrainingSettings]] = set()
        self.built_anew: dict[TaskSettings, BuiltAnew] = {}
        self._data: dict[tuple[str, int, float], Dataset] = {}
        self._normalise: dict[tuple[str, int, float], Normalise] = {}

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

    def use(self, config: Config, data: Dataset) -> None:
        """Let `data` be the config's data set."""
        wanted = config.task.dataset, config.task.image_size, config.task.validation
        self._data[wanted] = data
        self._normalise.pop(wanted, None)

    def normalise(self, config: Config) -> Normalise:
        """What is done to images of the config's data set, looked at once, on the CPU."""
        wanted = config.task.dataset, config.task.image_size, config.task.validation
        if wanted not in self._normalise:
            self._normalise[wanted] = Normalise(self.data(config).train[0])
        return self._normalise[wanted]

    @property
    def place(self) -> str:
        """The directory of results as it is shown: whoever named it may have meant harm to a terminal."""
        return printable(self.out)

    def directory(self, config: Config) -> RunDirectory:
        """Where the config's run is, or will be."""
        return RunDirectory(self.out, config, self.ranks.first)

"""One run from config to finished directory. It flows one way, each value made once, from the one before:

    config -> data, plain network (plain.py) -> attached (attached.py) -> ready (prepared.py)
           -> searched, its ticket written, proved from the file (ticket_run.py) -> found (found.py) -> the finished directory

A control has no search: plain -> the subnetwork of its ticket -> evaluated, or trained and evaluated (control_run.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from popup.lab.config import Config
from popup.lab.machine import hardware, versions
from popup.lab.runs.directory import RunDirectory
from popup.lab.runs.found import Found, Result, describe, describe_data
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.logs import opened
from popup.lab.runs.prepared import Prepared, prepare
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.state import Metrics


def run(laboratory: Laboratory, config: Config, on_epoch: Callable[[Metrics], None] = lambda metrics: None) -> Result:
    """Do the run of a config and leave its directory finished; returns what result.json holds."""
    return perform(laboratory, prepare(laboratory, config), on_epoch)


def perform(laboratory: Laboratory, prepared: Prepared, on_epoch: Callable[[Metrics], None],
            on_step: Callable[[float], None] | None = None) -> Result:
    """Do what was prepared, and leave its directory finished. `on_step` hears after each step how many epochs are done."""
    directory = laboratory.directory(prepared.config)
    checkpoints = Checkpoints(directory.checkpoint, stop=laboratory.stop, told=on_step,
                              seconds=laboratory.machine.checkpoint_seconds)
    checkpoints.of(prepared.config, prepared.data.fingerprint, prepared.network_fingerprint)
    found = _find(laboratory, prepared, directory, checkpoints, on_epoch)
    result = {**describe(prepared.config, found), **describe_data(prepared.data),
              "seconds": checkpoints.before + time.perf_counter() - prepared.began, "peak_memory": prepared.memory.peak(),
              "threads": torch.get_num_threads(), "ranks": laboratory.ranks.count, "hardware": hardware(laboratory.device),
              "versions": versions(), "network_fingerprint": prepared.network_fingerprint}
    directory.finish(result)
    checkpoints.remove()
    return result


def _find(laboratory: Laboratory, prepared: Prepared, directory: RunDirectory, checkpoints: Checkpoints,
          on_epoch: Callable[[Metrics], None]) -> Found:
    """Make the directory, and tell each epoch's metrics to it, to the logs and to `on_epoch`."""
    with opened(laboratory.machine.log, directory) as log:
        def tell(metrics: Metrics) -> None:
            for one in (directory.add_metrics, log, on_epoch):
                one(metrics)

        directory.start()
        return prepared.rest.find(directory, tell, checkpoints)

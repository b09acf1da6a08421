"""What tiny momentum costs: two states of one run, one of which never drops it, stepped in turn in one process.

    python tests/lab/momentum.py --epochs 30 --rounds 300

Prints for each network the share of such numbers without and with popup's dropping them, the CPU time of the optimiser's step
without and with, and the median and quartiles of the ratios with / without, of that step and of the whole one.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models import MODELS
from popup.lab.config import Config
from popup.lab.data.digits import digits
from popup.lab.training import training
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.fit import make_ready
from popup.lab.training.optimizers import SMALLEST, optimizer_of, settle
from popup.lab.training.ranks import Ranks
from popup.lab.training.state import TrainingState
from popup.search.network import scores

MLP, SMALL_CONV4 = {"model": "mlp", "widths": (256, 256)}, {"model": "conv4", "width": 0.25, "lr": 0.5}
RUNS = {"MLP 64-256-256-10, p = 0.2": {**MLP, "er_p": 0.2}, "the same, p = 1": {**MLP, "er_p": 1.0},
        "Conv-4 at a quarter of its widths, p = 0.2, lr 0.5": {**SMALL_CONV4, "er_p": 0.2}}


class Run:
    """One search on the digits, trained for some epochs, that can be stepped on. `settled`: tiny momentum is dropped."""

    def __init__(self, options: dict[str, object], epochs: int, settled: bool) -> None:
        config, data = Config.from_flat({**options, "dataset": "digits", "epochs": epochs}), digits()
        self.settings, task = config.training, config.task
        torch.manual_seed(0)
        net = MODELS[task.model](data.image, data.classes, **({"widths": task.widths} if task.widths else {}), width=task.width)
        ready = make_ready(net, data.train, data.test, config, Ranks())
        self.batches, self.dropping = ready.batches, settle if settled else lambda optimizer: None
        optimizer = optimizer_of(scores(net), self.settings, self.settings.lr)
        self.state = TrainingState(net, scores(net), optimizer, ready.batches.steps, ready.precision)
        for _ in range(epochs):
            with mock.patch.object(training, "settle", self.dropping):
                training.train_epoch(self.state, ready.batches, self.settings, self.settings.lr, Checkpoints())
            self.state.finish_epoch({})
        self.plain_step, self.seconds = optimizer.step, 0.0
        optimizer.step = self._timed

    def _timed(self) -> None:
        began = time.thread_time()
        self.plain_step()
        self.seconds = time.thread_time() - began

    def step(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        """The seconds of the optimiser's step, and of the whole one."""
        self.state.step %= len(self.state.losses)  # it goes on in one epoch, so that tiny numbers are dropped as often
        began = time.thread_time()
        with mock.patch.object(training, "settle", self.dropping):
            training.train_step(self.state, inputs, labels, 1e-4, self.settings)
        return self.seconds, time.thread_time() - began

    def tiny(self) -> float:
        """The share of the momentum that is smaller than any normal number and not 0."""
        found = torch.cat([value.flatten() for state in self.state.optimizer.state.values() for value in state.values()])
        return float(((found.abs() < SMALLEST) & (found != 0)).float().mean())


def main() -> None:
    """Measure all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, run in RUNS.items():
        pair = Run(run, options.epochs, settled=False), Run(run, options.epochs, settled=True)
        tiny = [f"{100 * one.tiny():.2g}%" for one in pair]
        batches = (batch for epoch in range(options.rounds) for batch in pair[0].batches.epoch(epoch))
        times = np.array([[one.step(*batch) for one in pair] for batch in islice(batches, options.rounds)])  # [round, run, what]
        quantiles = [np.quantile(times[:, 1, what] / times[:, 0, what], (0.5, 0.25, 0.75)) for what in (0, 1)]
        optimiser, whole = (f"{median:.2f} ({low:.2f}-{high:.2f})" for median, low, high in quantiles)
        without, settled = np.median(times[:, :, 0], axis=0) * 1e6
        print(f"{name}: tiny {' and '.join(tiny)}; optimiser's step {without:.0f} and {settled:.0f} us, {optimiser}; "
              f"whole step {whole}", flush=True)


if __name__ == "__main__":
    main()

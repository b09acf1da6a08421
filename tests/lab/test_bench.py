"""The bench: what it times is what it says."""

import torch

from popup.lab.bench import bench
from popup.lab.bench.bench import measure
from popup.lab.training.batches import Batches


def test_the_time_of_the_data_is_a_whole_epochs_by_its_batches(monkeypatch):
    """Several batches are prepared at a time, so that a single one often costs nothing. Here all are, at the first, and the
    clock is how many have been prepared so far."""
    prepared, epoch = [0], Batches.epoch

    def counted(batches, number):
        prepared[0] += batches.steps
        yield from epoch(batches, number)

    monkeypatch.setattr(Batches, "epoch", counted)
    found = bench._pipeline(torch.randn(8, 1, 4, 4), torch.arange(8) % 2)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(prepared[0]))
    assert [figure.seconds for figure in measure([found], 4)] == [1.0]

"""The memory of a training step, network and all that it learns by included, each in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver

import torch

from popup.lab.bench.bench import Subject
from popup.lab.machine import PeakMemory, return_freed_memory

STEPS = 2
NEEDED = ("popup.lab.bench.wide_networks", "popup.products.compiled", "torch._dynamo", "scipy.special")  # what takes a second
Make = Callable[[], Subject]  # that another process can be sent


def peaks_of_steps(makers: Sequence[Make], narrow: Sequence[Make], tick: Callable[[], object] = lambda: None) -> list[int | None]:
    """Bytes that a step of each subject takes at its peak; None where the system does not tell. `narrow` makes the same of a
    small network first, for what is loaded and compiled once."""
    forkserver.set_forkserver_preload(list(NEEDED))
    context, found = multiprocessing.get_context("forkserver"), []
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        for make, first in zip(makers, narrow, strict=True):
            found.append(processes.submit(_peak, make, first, torch.get_num_threads()).result())
            tick()
    return found


def _peak(make: Make, first: Make, threads: int) -> int | None:
    """The peak over what the process had before, while it steps."""
    torch.set_num_threads(threads)
    return_freed_memory()
    first()
    gc.collect()
    before = PeakMemory(torch.device("cpu")).peak()
    subject = make()
    gc.collect()
    memory = PeakMemory(torch.device("cpu"))
    for _ in range(STEPS):
        subject.step()
    peak = memory.peak()
    return None if before is None or peak is None else peak - before

"""What a step costs where a network is small, so that calls rule and not numbers: popup's and published edge-popup's beside the
dense network's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from popup.lab.bench.bench import Build, Figure, dense_step, in_a_row, least_disturbed, measure, popup_step, published_step

P, CLASSES = 0.2, 10


@dataclass(frozen=True)
class Small:
    """A network of `model`, on images of that shape, `batch` a step. `threads`: as a run on such data takes them; 0 is as many as
    all else has. `times`: steps a turn, which is to last some hundredths of a second."""

    model: str
    image: tuple[int, int, int]
    batch: int
    threads: int
    times: int


NETWORKS = (Small("mlp", (1, 8, 8), 32, 1, 60), Small("lenet_300_100", (1, 28, 28), 128, 1, 20),
            Small("small_conv", (1, 8, 8), 32, 1, 10), Small("resnet20", (3, 32, 32), 32, 0, 1))


@dataclass(frozen=True)
class SmallCost:
    """The figures of one of them; `clock`: CPU on one thread, else wall."""

    network: Small
    clock: str
    figures: tuple[Figure, ...]


def time_small(builder: Callable[[str, Sequence[int]], Build], device: torch.device, rounds: int,
               tick: Callable[[], object] = lambda: None, *, networks: Sequence[Small]) -> Iterator[SmallCost]:
    """Each network's cost as it comes; `builder(model, image)` gives what builds one."""
    for network in networks:
        inputs = torch.randn(network.batch, *network.image, generator=torch.Generator().manual_seed(0)).to(device)
        given = builder(network.model, network.image), inputs, torch.arange(network.batch, device=device) % CLASSES, "fp32"
        with threads(network.threads):
            clock = least_disturbed(device)
            found = [in_a_row(subject, network.times)
                     for subject in (dense_step(*given), popup_step(*given, P), published_step(*given))]
            figures = measure(found, rounds, tick, clock)
        yield SmallCost(network, "CPU" if clock else "wall", tuple(figures))


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads of torch within; 0: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

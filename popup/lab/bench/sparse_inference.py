"""What a ticket's network takes on its kept edges alone, beside the dense network's forward pass, by batch and final density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from popup.lab.bench.bench import Build, Figure, Subject, measure
from popup.search.attach import attach
from popup.ticket.ticket import extract

BATCHES, DENSITIES = (1, 32, 128, 256), (0.1, 0.05, 0.01)
K = 0.5
TOGETHER = 128  # images that a turn passes at least, so that a small batch is timed over several passes


@dataclass(frozen=True)
class InferenceCost:
    """A forward pass of `batch` images: of each density the figure beside the dense network's, which is the first."""

    batch: int
    figures: tuple[Figure, ...]


def time_inference(build: Build, image: Sequence[int], device: torch.device, rounds: int,
                   tick: Callable[[], object] = lambda: None) -> list[InferenceCost]:
    """All batches in turn; the dense network, which is the same for every density, and the sparse ones interleaved."""
    networks = {"dense forward": build().to(device).eval()}
    networks |= {f"sparse, density {density:g}": sparse_network(build, density).to(device) for density in DENSITIES}
    rows = []
    for batch in BATCHES:
        inputs = torch.randn(batch, *image, generator=torch.Generator().manual_seed(0)).to(device)
        times = max(1, TOGETHER // batch)
        found = [Subject(name, partial(_passes, net, inputs, times), bytes_of(net), times=times)
                 for name, net in networks.items()]
        rows.append(InferenceCost(batch, tuple(measure(found, rounds, tick))))
    return rows


def sparse_network(build: Build, density: float) -> nn.Module:
    """The network of a ticket of that final density, on its kept edges alone."""
    ticket = extract(attach(build(), er_p=density / K, k=K))
    return ticket.apply(build(), sparse=True).eval()


def bytes_of(net: nn.Module) -> int:
    """What its parameters and buffers take."""
    return sum(tensor.nbytes for tensor in net.state_dict().values())


@torch.inference_mode()
def _passes(net: nn.Module, inputs: torch.Tensor, times: int) -> None:
    for _ in range(times):
        net(inputs)

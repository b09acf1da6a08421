"""What a step of a wide MLP costs as the density falls, in time and in memory: popup's, computing by the rule of
popup/products/rule.py and densely, and that of libraries made for sparse weights, beside the dense network's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from popup.lab.bench.bench import Build, Figure, Subject, a_turn_long, dense_step, least_disturbed, measure, popup_step
from popup.lab.bench.peers import PEERS, Peer, peer_step
from popup.lab.bench.step_memory import Make, peaks_of_steps

WIDTHS, DENSITIES = (2048, 4096), (0.2, 0.1, 0.05, 0.02, 0.01)
NARROW = 512  # the width of a network that computes as the wide ones do, by the rule too
IMAGE, BATCH, CLASSES = (1, 28, 28), 128, 10
WAYS = {"auto": "sparse by the rule", "dense": "dense"}
Builder = Callable[[int], Build]  # of a width


@dataclass(frozen=True)
class WideCost:
    """Two hidden layers of `width`, at ER density `p` and k = 0.5, `batch` images a step: the figures, of which the first is the
    dense network's own, by `clock` (CPU on one thread, else wall), and of each the bytes that its step takes at its peak (None:
    not known)."""

    width: int
    p: float
    batch: int
    clock: str
    figures: tuple[Figure, ...]
    memory: tuple[int | None, ...]


def time_wide(builder: Builder, widths: Sequence[int], densities: Sequence[float], rounds: int,
              tick: Callable[[], object] = lambda: None, batch: int = BATCH) -> Iterator[WideCost]:
    """Each cost as it comes, all subjects of one density interleaved, each some steps in a row; memory is measured after, one
    by one."""
    peers, clock = measured_peers(), least_disturbed(torch.device("cpu"))
    for width in widths:
        of_dense: list[int | None] = []
        for p in densities:
            makers, narrow = (subject_makers(builder(size), p, batch, peers) for size in (width, min(width, NARROW)))
            figures = measure([a_turn_long(make(), clock) for make in makers], rounds, tick, clock)
            done = len(of_dense)  # the dense network is the same at every density
            peaks = of_dense + peaks_of_steps(makers[done:], narrow[done:], tick)
            of_dense = peaks[:1]
            yield WideCost(width, p, batch, "CPU" if clock else "wall", tuple(figures), tuple(peaks))


def ticks(widths: Sequence[int], densities: Sequence[float], rounds: int) -> int:
    """How often `time_wide` ticks."""
    return len(widths) * (1 + len(densities) * (rounds + 1 + len(WAYS) + len(measured_peers())))


def measured_peers() -> list[Peer]:
    """Those that are installed."""
    return [peer for peer in PEERS if peer.missing() is None]


def subject_makers(build: Build, p: float, batch: int, peers: Sequence[Peer]) -> list[Make]:
    """What makes the subjects of one density, here or in another process."""
    return [partial(_dense, build, batch), *(partial(_popup, build, batch, p, compute) for compute in WAYS),
            *(partial(_peer, build, batch, p, peer) for peer in peers)]


def _batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(0)), torch.arange(count) % CLASSES


def _dense(build: Build, batch: int) -> Subject:
    return dense_step(build, *_batch(batch), "fp32")


def _popup(build: Build, batch: int, p: float, compute: str) -> Subject:
    subject = popup_step(build, *_batch(batch), "fp32", p, compute)
    return replace(subject, name=f"popup, {WAYS[compute]}")


def _peer(build: Build, batch: int, p: float, peer: Peer) -> Subject:
    return replace(peer_step(peer, build, *_batch(batch), p), name=peer.name)

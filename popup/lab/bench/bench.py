"""The bench: what a step costs beside the dense network's own, all subjects interleaved in one process.

Absolute times mean nothing on a noisy machine; ratios within one round of turns do. Each figure is the median over the
rounds of a subject's time divided by the dense step's time in the same round, with the quartiles as its spread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from popup.lab.bench.original import attach_published
from popup.lab.config import TrainingSettings
from popup.lab.precision import Precision
from popup.lab.training.batches import Batches
from popup.lab.training.optimizers import sgd
from popup.search.attach import attach, attach_recipe
from popup.search.keys import magnitude_keys
from popup.search.network import scores, search_of
from popup.search.search import Search
from popup.search.select import Bracket, top
from popup.search.settings import SearchSettings
from popup.source.recipe import Recipe

Build = Callable[[], nn.Module]
DENSITIES = (1.0, 0.5, 0.2, 0.05)
K = 0.5
TURN, MOST_IN_A_ROW = 0.1, 30  # seconds, steps
DENSE, LIMIT = "dense weight-training step", "forward + backward alone"


@dataclass(frozen=True)
class Subject:
    """Something to time: `step` does it `times` times, after what `before` does untimed. `state`: bytes of scores or weights
    that learn, momentum and index."""

    name: str
    step: Callable[[], object]
    state: int = 0
    before: Callable[[], None] = lambda: None
    times: int = 1


@dataclass(frozen=True)
class Figure:
    """A subject's time over the dense step's in the same round: median and quartiles; seconds: the median."""

    name: str
    ratio: float
    low: float
    high: float
    seconds: float
    state: int


def network(build: Build, device: torch.device, wanted: str) -> tuple[nn.Module, Precision]:
    """The network on its device, in the memory format that it is fast in, and how it computes in fp32 or bf16 as `wanted`."""
    net = build().to(device)
    precision = replace(Precision.of(net, "fp32"), bf16=wanted == "bf16")
    return net.to(memory_format=torch.channels_last) if precision.channels_last else net, precision


def dense_step(build: Build, inputs: torch.Tensor, labels: torch.Tensor, wanted: str, name: str = DENSE,
               learn: bool = True) -> Subject:
    """The dense network's own training step in fp32 or bf16 as `wanted`; `learn=False` leaves the optimiser out."""
    net, precision = network(build, inputs.device, wanted)
    return training_step(name, net, list(net.parameters()), precision, inputs, labels, learn)


def popup_step(build: Build, inputs: torch.Tensor, labels: torch.Tensor, wanted: str, p: float, compute: str = "auto") -> Subject:
    """popup's training step at ER density `p`, in fp32 or bf16 as `wanted`; `compute` as `popup.attach` takes it."""
    net, precision = network(build, inputs.device, wanted)
    against = torch.bfloat16 if precision.bf16 else torch.float32
    attach_recipe(net, Recipe(er_p=p, k=K), SearchSettings(), compute=compute, against=against).to(inputs.device)
    return training_step(f"popup, p = {p:g}", net, scores(net), precision, inputs, labels)


def published_step(build: Build, inputs: torch.Tensor, labels: torch.Tensor, wanted: str, as_published: bool = False) -> Subject:
    """Published edge-popup's training step: in fp32 or bf16 as `wanted`, or in fp32 and contiguous, as it was published."""
    net, precision = network(build, inputs.device, wanted)
    name = "published edge-popup, equal precision"
    if as_published:
        net, precision = net.to(memory_format=torch.contiguous_format), Precision(inputs.device, False, False)
        name = "published edge-popup as published (fp32)"
    return training_step(name, net, attach_published(net, K), precision, inputs, labels)


def subjects(build: Build, inputs: torch.Tensor, labels: torch.Tensor, wanted: str) -> list[Subject]:
    """All that is timed for one network: `build` makes it, on the device of `inputs` [n, c, h, w] and `labels` [n]."""
    def selection() -> Subject:
        net, _ = network(build, inputs.device, wanted)
        search = search_of(attach(net, er_p=0.2, k=K).to(inputs.device))
        return Subject("selection alone, p = 0.2", search.select, before=lambda: _drift(search))

    given = build, inputs, labels, wanted
    return [dense_step(*given), dense_step(*given, LIMIT, learn=False), published_step(*given), published_step(*given, True),
            *(popup_step(*given, p) for p in DENSITIES), selection(), _pipeline(inputs, labels)]


def training_step(name: str, net: nn.Module, learned: list[nn.Parameter], precision: Precision, inputs: torch.Tensor,
                  labels: torch.Tensor, learn: bool = True) -> Subject:
    """One training step on one batch, without data; `learn=False` leaves the optimiser out."""
    optimizer = sgd(learned, TrainingSettings(), lr=0.01)
    images = precision.inputs(inputs)
    net.train()

    def step() -> None:
        with precision.autocast():
            logits = net(images)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        if learn:
            optimizer.step()

    step()
    index = sum(layer.gaps.nbytes for layer in search_of(net).layers) if name.startswith("popup") else 0
    state = sum(value.nbytes for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value))
    return Subject(name, step, sum(parameter.nbytes for parameter in learned) + state + index)


def _drift(search: Search) -> None:
    """Scores have moved a little since the last selection, as in training."""
    for score in search.scores():
        score.data.mul_(1.0001)


def _pipeline(inputs: torch.Tensor, labels: torch.Tensor) -> Subject:
    """Order, crop, flip and normalisation of a batch, from uint8 images on the device: of a whole epoch by the number of its
    batches, since several are prepared at a time."""
    images = (inputs.clamp(-4, 4) * 31 + 128).to(torch.uint8).repeat(16, 1, 1, 1)
    batches = Batches(images, labels.repeat(16), len(labels), ("crop", "flip"), seed=0)
    epochs = count()

    def epoch() -> None:
        for _ in batches.epoch(next(epochs)):
            pass

    return Subject("data pipeline alone (crop, flip)", epoch, times=batches.steps)


def in_a_row(subject: Subject, times: int) -> Subject:
    """The same, so many steps a turn, as they follow one another in training: a single one would find its network fallen out of
    the cache, and threads asleep."""
    return replace(subject, step=partial(_several, subject.step, times), times=times)


def a_turn_long(subject: Subject, clock: Callable[[], float] | None = None) -> Subject:
    """The same, as many steps in a row as last TURN, after one that is not timed."""
    subject.step()
    times = round(TURN / max(_time(subject.step, clock), TURN / MOST_IN_A_ROW))  # a coarse clock may not have moved
    return replace(in_a_row(subject, max(1, min(times, MOST_IN_A_ROW))), before=partial(_several, subject.step, 1))


def _several(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()


def measure(found: Sequence[Subject], rounds: int, tick: Callable[[], object] = lambda: None,
            clock: Callable[[], float] | None = None) -> list[Figure]:
    """The figures of all subjects, the first of which must be the dense step, by wall time or another `clock`."""
    times = interleaved(found, rounds, tick, clock)
    ratios = times / times[:, :1]
    quartiles = np.percentile(ratios, (50, 25, 75), axis=0).T.tolist()
    return [Figure(subject.name, ratio, low, high, float(np.median(times[:, place])), subject.state)
            for place, (subject, (ratio, low, high)) in enumerate(zip(found, quartiles, strict=True))]


def interleaved(found: Sequence[Subject], rounds: int, tick: Callable[[], object] = lambda: None,
                clock: Callable[[], float] | None = None) -> np.ndarray:
    """Seconds [rounds, subjects]: every subject is timed once a round, in another order each round, after one round that does not
    count. (In a fixed order the dense step itself, timed at two places of it, came out 1.8% apart.)"""
    times, orders = np.zeros((rounds + 1, len(found))), np.random.default_rng(0)
    for turn in range(rounds + 1):
        for place in orders.permutation(len(found)):
            found[place].before()
            times[turn, place] = _time(found[place].step, clock) / found[place].times
        tick()
    return times[1:]


def least_disturbed(device: torch.device) -> Callable[[], float] | None:
    """CPU time where one thread computes on the CPU, since other programs disturb it less; else None, for wall time."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else None


def _time(step: Callable[[], object], clock: Callable[[], float] | None = None) -> float:
    """Seconds of one call; on a GPU until its kernels are done."""
    clock = clock or time.perf_counter
    began = clock()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def _select(values: torch.Tensor, bracket: Bracket) -> torch.Tensor:
    return top(magnitude_keys(values), len(values) // 2, bracket)


def _sort(values: torch.Tensor) -> object:
    return values.abs().sort()


def time_selection(sizes: Sequence[int], rounds: int = 5) -> list[tuple[int, float, float]]:
    """(scores, seconds of popup's selection, seconds of a full sort) for one layer of each size; medians of interleaved
    rounds in which the scores drift as in training."""
    rows = []
    for size in sizes:
        values, bracket = torch.randn(size, generator=torch.Generator().manual_seed(0)), Bracket()
        ours, theirs = [], []
        for turn in range(rounds + 3):
            values.mul_(1.0001)
            ours.append(_time(partial(_select, values, bracket)))
            theirs.append(_time(partial(_sort, values)) if turn >= 3 else 0.0)
        rows.append((size, float(np.median(ours[3:])), float(np.median(theirs[3:]))))
    return rows

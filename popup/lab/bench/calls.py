"""How many operations a device is given in a step, counted on tensors without data: what the host has to launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from popup.lab.bench.bench import Build
from popup.search.attach import attach
from popup.search.dispatch import DispatchMode
from popup.search.network import search_of

META, BATCH = torch.device("meta"), 4
P, K = 0.2, 0.5


class Calls(DispatchMode):
    """Counts the operations that a device would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> object:
        self.found[func] += 1
        return func(*args, **(kwargs or {}))


def calls_of(net: nn.Module, image: Sequence[int]) -> Counter[Any]:
    """The operations of a forward and a backward pass of a network on META, the second of two."""
    inputs, labels = torch.empty(BATCH, *image, device=META), torch.zeros(BATCH, dtype=torch.int64, device=META)
    calls = [Calls(), Calls()]
    for each in calls:
        net.zero_grad()
        with each:
            F.cross_entropy(net(inputs), labels).backward()
    return calls[-1].found


@dataclass(frozen=True)
class StepCalls:
    """Of one network: its layers, the calls of the dense network's passes, and those that popup adds: selection, effective
    weights and score gradients."""

    layers: int
    dense: int
    added: int


def count_calls(build: Build, image: Sequence[int]) -> StepCalls:
    """The calls of the network that `build` makes and of popup on it, computing densely, as it does on a GPU."""
    dense, net = build().to(META), attach(build(), er_p=P, k=K, compute="dense").to(META)
    of_dense = calls_of(dense, image)
    return StepCalls(len(search_of(net).layers), of_dense.total(), (calls_of(net, image) - of_dense).total())

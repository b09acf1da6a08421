"""Several threads that call one attached network at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from popup import attach
from popup.search.network import search_of


class Waits(nn.Module):
    """Does what a test wants in the middle of a pass."""

    before = None

    def forward(self, x):
        if self.before:
            self.before(x)
        return x


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_one_ends_goes_on_for_the_others(mode):
    """The second layer of the slow ones runs when the quick one has ended."""
    began, ended = threading.Barrier(3), threading.Event()

    def before(x):
        began.wait(20)
        if x[0, 0] > 0:
            assert ended.wait(20)

    first, second = Waits(), Waits()
    net = attach(nn.Sequential(first, nn.Linear(4, 30), second, nn.Linear(30, 3)), er_p=0.5, k=0.5, compute="sparse")
    passing, inputs = [], [torch.full((2, 4), float(place)) for place in range(3)]
    with torch.no_grad():
        alone = [net(x) for x in inputs]
    first.before, second.before = before, lambda x: passing.append(search_of(net).passing)

    def call(x):
        with mode():
            y = net(x)
        if not x.any():
            ended.set()
        return y

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(call, inputs))
    assert all(map(torch.equal, found, alone)) and passing == [True] * 3
    assert not search_of(net).passing

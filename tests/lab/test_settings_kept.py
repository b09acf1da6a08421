"""Generators, handlers and modes that are not a run's own are as before it, also where it is broken off."""

import contextlib
import signal
import sys

import pytest
import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.networks import build_network
from popup.lab.randomness import seeded
from popup.lab.training.stop import Stop, Stopped
from popup.source.streams import Stream


def test_a_seeded_block_seeds_the_generators_that_it_gives_back_and_no_others(monkeypatch):
    """torch.manual_seed is all devices', and of a run on the CPU those of GPUs were left seeded."""
    before, others = torch.get_rng_state(), []
    for module in (torch.cuda, torch.mps, torch.xpu):
        monkeypatch.setattr(module, "manual_seed" if module is torch.mps else "manual_seed_all", others.append)
    with pytest.raises(KeyboardInterrupt), seeded(3, "training", torch.device("cpu")):
        drawn = torch.rand(4)
        raise KeyboardInterrupt
    word = int(Stream(3, "torch", "training").words64(1)[0])
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(word)))
    assert torch.equal(before, torch.get_rng_state()) and not others


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_seeded_block_gives_back_every_gpus_generator():
    devices = [torch.device("cuda", place) for place in range(torch.cuda.device_count())]
    before = [torch.cuda.get_rng_state(device) for device in devices]
    for device in (torch.device("cpu"), devices[-1]):
        with seeded(3, "training", device):
            drawn = torch.rand(4, device=devices[-1])
        assert all(torch.equal(torch.cuda.get_rng_state(one), state)
                   for one, state in zip(devices, before, strict=True) if device != torch.device("cpu") or one != devices[-1])
    word = int(Stream(3, "torch", "training").words64(1)[0])
    assert torch.equal(drawn, torch.rand(4, device=devices[-1], generator=torch.Generator(devices[-1]).manual_seed(word)))


def test_a_signal_while_handlers_are_put_in_place_leaves_those_of_before(monkeypatch):
    stop, real, hook = Stop(), signal.signal, sys.unraisablehook
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupted(number, handler):
        found = real(number, handler)
        if number == signal.SIGTERM and handler == stop.ask:
            signal.raise_signal(signal.SIGINT)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", interrupted)
        with pytest.raises(Stopped), stop.listening():
            pytest.fail("the block began")
    assert {number: signal.getsignal(number) for number in before} == before and sys.unraisablehook is hook


def test_a_network_that_is_tried_is_in_the_modes_that_its_builder_gave_it():
    shared = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    shared[1].eval()
    for classes in (3, 5):  # of 5 it makes too few logits, which is told
        with pytest.raises(UsageError, match="not logits") if classes == 5 else contextlib.nullcontext():
            build_network({"own": lambda image, classes: shared}, Config().replace(model="own"), (1, 2, 2), classes)
        assert [module.training for module in shared] == [True, False, True] and shared.training


def fails(images):
    raise OverflowError("a fault that is not told")


def test_the_same_where_its_forward_raises():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    net[1].forward = fails
    with pytest.raises(UsageError):
        build_network({"own": lambda image, classes: net}, Config().replace(model="own"), (1, 2, 2), 3)
    assert net.training and net[1].training

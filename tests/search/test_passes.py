"""Passes of one attached network that are under way at once, within one another, or were never ended."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from popup import UsageError, attach, merge, scores
from popup.search.network import search_of
from popup.search.settings import SearchSettings
from popup.source.recipe import Recipe

# of which training uses other gates than the ticket's
SETTINGS = [SearchSettings(anneal="cubic"), SearchSettings(method="sampled"), SearchSettings(method="gates")]
COMPUTES = ["dense", "sparse"]


class Waits(nn.Module):
    """Does what a test wants in the middle of a pass."""

    before = None

    def forward(self, x):
        if self.before:
            self.before(x)
        return x


def chain(settings, compute):
    """An attached chain in training mode, and the module at its middle."""
    torch.manual_seed(0)
    middle = Waits()
    net = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), middle, nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    return attach(net, Recipe(er_p=0.5, k=0.3), settings, compute=compute), middle


def step(net, x):
    """The output and the gradients of a training pass whose draws begin anew."""
    torch.manual_seed(3)
    y = net(x)
    found = torch.autograd.grad(y.square().sum(), scores(net))
    return [y.detach(), *found]


def evaluate(net, x):
    with torch.no_grad():
        return net(x)


def same(left, right):
    return all(map(torch.equal, left, right))


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
    assert same(found, alone) and passing == [True] * 3
    assert not search_of(net).passing


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.method)
@pytest.mark.parametrize("outer", [step, evaluate])
def test_one_trains_while_another_evaluates(settings, compute, outer):
    """Each in the middle of the other's pass, in its own thread: the inner one is whole there."""
    net, middle = chain(settings, compute)
    x, inner = torch.randn(4, 8), evaluate if outer is step else step
    alone = {call: call(net, x) for call in (step, evaluate)}
    found = []

    def before(x):
        middle.before = None
        with ThreadPoolExecutor(1) as threads:
            found.append(threads.submit(inner, net, given).result())

    given, middle.before = x, before
    assert same(outer(net, x), alone[outer]) and same(found[0], alone[inner])
    assert not search_of(net).passing


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.method)
@pytest.mark.parametrize("inner", [step, evaluate])
def test_a_pass_inside_another_leaves_it_as_it_is(settings, compute, inner):
    net, middle = chain(settings, compute)
    x, y = torch.randn(4, 8), torch.randn(4, 8)
    alone, inside = step(net, x), inner(net, y)
    found = []

    def before(x):
        middle.before = None
        found.append(inner(net, y))

    middle.before = before
    assert same(step(net, x), alone) and same(found[0], inside)
    assert not search_of(net).passing


@pytest.mark.parametrize("compute", COMPUTES)
def test_one_that_fails_inside_another_leaves_it_as_it_is(compute):
    net, middle = chain(SETTINGS[0], compute)
    x = torch.randn(4, 8)
    alone = step(net, x)

    def before(x):
        middle.before = None
        with pytest.raises(RuntimeError, match="shapes"):
            net(torch.ones(4, 9))
        search_of(net).ordered = False
        with pytest.raises(UsageError):
            net(x)  # refused before it begins
        search_of(net).ordered = True

    middle.before = before
    assert same(step(net, x), alone)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit])
def test_a_pass_that_was_interrupted_is_over(compute, train, ends):
    """Torch calls no hook after what is no Exception."""
    net, middle = chain(SETTINGS[0], compute)
    x = torch.randn(4, 8)
    step(net, x)

    def before(x):
        raise ends

    middle.before = before
    with pytest.raises(ends), torch.set_grad_enabled(train):
        net(x)
    middle.before = None
    assert not search_of(net).passing
    with torch.no_grad():
        for score in scores(net):
            score.copy_(torch.randn_like(score))
    plain = merge(net)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert torch.equal(net[0].weight, plain[0].weight) and torch.allclose(net[0](x), plain[0](x), atol=1e-6)
    with pytest.raises(UsageError, match="a part of the network"):
        net[0](x).sum().backward()


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_thread_that_ends_in_a_pass_leaves_none_to_others(compute):
    net, middle = chain(SETTINGS[0], compute)
    x = torch.randn(4, 8)

    def before(x):
        raise SystemExit

    middle.before = before

    def leaves():
        with contextlib.suppress(SystemExit):  # as threading does, and pytest does not
            net(x)

    ended = threading.Thread(target=leaves)
    ended.start()
    ended.join()
    middle.before = None
    assert not search_of(net).passing
    with pytest.raises(UsageError, match="a part of the network"):
        net[0](x).sum().backward()


class Branches(nn.Module):
    """Two layers that the threads of one pass do."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 30), nn.Linear(8, 30)
        self.threads = None

    def forward(self, x):
        calls = (self.left, self.right)
        parts = self.threads.map(lambda call: call(x), calls) if self.threads else [call(x) for call in calls]
        return sum(parts)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.method)
def test_threads_of_one_pass_do_parts_of_it(settings, compute):
    net = attach(Branches(), Recipe(er_p=0.5, k=0.3), settings, compute=compute)
    x = torch.randn(4, 8)
    alone, told = step(net, x), evaluate(net, x)
    with ThreadPoolExecutor(2) as net.threads:
        assert same(step(net, x), alone)
        torch.testing.assert_close(evaluate(net, x), told)  # without gradients a thread has no pass, and computes densely


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_part_that_another_thread_evaluates_is_the_tickets(compute):
    net, middle = chain(SETTINGS[0], compute)
    x, found = torch.randn(4, 8), []
    plain = merge(net)

    def before(x):
        with ThreadPoolExecutor(1) as threads:
            found.append(threads.submit(evaluate, net[0], given).result())

    given, middle.before = x, before
    net(x)
    torch.testing.assert_close(found[0], plain[0](x).detach())

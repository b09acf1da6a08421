"""What torch.utils.checkpoint computes anew in a backward pass: with the gates of its own pass, whatever came between."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from popup import UsageError, attach, scores
from popup.search.settings import SearchSettings
from popup.source.recipe import Recipe

# of which training uses other gates than the ticket's
SETTINGS = {"cubic": SearchSettings(anneal="cubic"), "sampled": SearchSettings(method="sampled"),
            "gates": SearchSettings(method="gates")}
COMPUTES = ["dense", "sparse"]
ONE, OTHER = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))


class Parts(nn.Module):
    """Three layers, of which the middle one may be computed anew."""

    def __init__(self, reentrant):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 40), nn.Linear(40, 40), nn.Linear(40, 3)
        self.reentrant = reentrant

    def half(self, x):
        return torch.relu(self.middle(x))

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = self.half(x) if self.reentrant is None else checkpoint(self.half, x, use_reentrant=self.reentrant)
        return self.last(x)


def network(settings, compute, reentrant=None):
    torch.manual_seed(0)
    return attach(Parts(reentrant), Recipe(er_p=0.5, k=0.3), SETTINGS[settings], compute=compute)


def loss(net, x=ONE):
    return net(x).square().sum()


def two_passes(net):
    return loss(net) + loss(net, OTHER)


def evaluated_with_gradients(net):
    """As for an adversarial example."""
    found = loss(net)
    net.eval()(OTHER)
    net.train()
    return found


def evaluated(net):
    found = loss(net)
    with torch.no_grad():
        net(OTHER)
    return found


def of_another_thread(net):
    """Whose pass has nodes of other numbers: a thread counts its own."""
    found = loss(net)
    for _ in range(9):
        torch.ones(2, requires_grad=True) * 2
    thread = threading.Thread(target=lambda: net.eval()(OTHER))
    thread.start()
    thread.join()
    net.train()
    return found


def dropped_first(net):
    """Of the first of two passes nothing is wanted."""
    loss(net, OTHER)
    return loss(net)


WHAT = [two_passes, evaluated_with_gradients, evaluated, dropped_first]


def gradients(net, what):
    torch.manual_seed(3)
    return torch.autograd.grad(what(net), scores(net))


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("what", WHAT)
def test_a_part_has_the_gates_of_its_own_pass(what, settings, compute):
    found = [gradients(network(settings, compute, reentrant), what) for reentrant in (None, False)]
    assert all(map(torch.equal, *found))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_reentrant_part_has_those_of_its_pass_or_is_refused(settings, compute):
    """It leaves no graph that would hold an earlier pass."""
    def backward(net, what):
        torch.manual_seed(3)
        what(net).backward()
        return [score.grad for score in scores(net)]

    for what in (loss, evaluated):
        assert all(map(torch.equal, *(backward(network(settings, compute, reentrant), what) for reentrant in (None, True))))
    net = network(settings, compute, True)
    try:
        found = backward(net, two_passes)
    except UsageError as refused:
        assert "computed anew in a backward pass" in str(refused)
    else:
        assert all(map(torch.equal, found, backward(network(settings, compute), two_passes)))


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_another_threads_pass_changes_nothing_or_is_refused(settings, compute):
    net = network(settings, compute, False)
    try:
        found = gradients(net, of_another_thread)
    except UsageError as refused:
        assert "train in one thread" in str(refused)
    else:
        assert all(map(torch.equal, found, gradients(network(settings, compute), loss)))


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_whole_network_computed_anew(settings, compute):
    """Not reentrant it is right, whatever is evaluated between. Reentrant its forward pass used the ticket."""
    def whole(reentrant):
        def call(net):
            given = ONE.clone().requires_grad_()
            found = checkpoint(net, given, use_reentrant=reentrant).square().sum()
            with torch.no_grad():
                net(OTHER)
            return found
        return call

    alone = gradients(network(settings, compute), loss)
    assert all(map(torch.equal, alone, gradients(network(settings, compute), whole(False))))
    with pytest.raises(UsageError, match="use_reentrant=False"):
        (whole(True)(net := network(settings, compute)) + 0 * loss(net, OTHER)).backward()


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_ticket_that_is_trained_by_is_the_same_in_any_pass(compute):
    """edge_popup at its final k."""
    def network():
        torch.manual_seed(0)
        return attach(Parts(None), Recipe(er_p=0.5, k=0.3), compute=compute)

    alone, net = gradients(network(), loss), network()
    checkpoint(net, ONE.clone().requires_grad_(), use_reentrant=True).square().sum().backward()
    assert all(torch.equal(score.grad, gradient) for score, gradient in zip(scores(net), alone, strict=True))


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_part_called_by_itself_has_the_ticket_of_now(compute):
    """Where the ticket is trained by: not that of the last pass, which the scores have left since."""
    def part(reentrant):
        torch.manual_seed(0)
        net = attach(Parts(None), Recipe(er_p=0.5, k=0.3), compute=compute)
        loss(net).backward()
        with torch.no_grad():
            for score in scores(net):
                score.grad = None
                score.copy_(torch.randn_like(score))
        x = ONE.clone().requires_grad_()
        y = torch.relu(net.first(x)) if reentrant is None else checkpoint(lambda x: torch.relu(net.first(x)), x,
                                                                         use_reentrant=reentrant)
        y.square().sum().backward()
        return [x.grad, scores(net)[0].grad]

    for reentrant in (False, True):
        torch.testing.assert_close(part(reentrant), part(None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_pass_that_is_over_holds_nothing(compute):
    net, gone = network("sampled", compute), []
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            x = torch.randn(4, 8)
            y = net(x)
            y.square().sum().backward()
            gone += [weakref.ref(x), weakref.ref(y)]
            del x, y
        assert not any(one() is not None for one in gone)
    finally:
        gc.enable()

"""Number types of an attached network: under autocast, after .half() and back, and with weights that float32 does not hold."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import UsageError, attach, extract, merge, scores, verify
from popup.search.network import search_of


class Table(nn.Module):
    """A table that is masked, whose rows are put beside others by index."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        rows = torch.zeros(len(x), 8)
        rows[x > 0] = self.table(x[x > 0])
        return self.head(rows)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.head = nn.Bilinear(4, 5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.both(x[:, :4], x[:, 4:]))


class Scaled(nn.Linear):
    """What it multiplies with is no weight of its own, and float32 until the product."""

    def forward(self, x):
        return F.linear(x, self.weight * 0.3)


@pytest.mark.parametrize(("build", "inputs"), [
    (Table, torch.arange(9)), (Both, torch.randn(6, 9, generator=torch.Generator().manual_seed(0))),
    (lambda: nn.Sequential(Scaled(9, 7), nn.Linear(7, 3)), torch.randn(6, 9, generator=torch.Generator().manual_seed(0)))])
def test_under_autocast_it_computes_what_its_plain_network_does(build, inputs):
    """Autocast casts what goes into products of torch's, and neither a table, nor a bilinear layer, nor what a forward makes."""
    net = attach(build(), er_p=0.6, weights="kaiming_normal", only=("table", "head") if build is Table else ())
    plain = merge(net)
    for trained in (True, False):
        net.train(trained)
        with torch.autocast("cpu", torch.bfloat16):
            found, wanted = net(inputs), plain(inputs)
        assert found.dtype is wanted.dtype and torch.equal(found, wanted)
        if trained:
            found.float().square().sum().backward()
    assert all(bool(score.grad.any()) for score in scores(net))


@pytest.mark.parametrize("there_and_back", [lambda net: net.half().float(), lambda net: net.bfloat16().float(),
                                            lambda net: net.double().float()])
@pytest.mark.parametrize("weights", ["kaiming_normal", "signed_constant"])
def test_a_source_keeps_its_weights_whatever_the_network_is_converted_to(there_and_back, weights):
    """They were rounded, and only who applied the ticket was told."""
    net = attach(nn.Sequential(nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3)), er_p=0.5, weights=weights, method="iterand")
    before = [layer.values.clone() for layer in search_of(net).layers]
    there_and_back(net)
    assert all(map(torch.equal, before, (layer.values for layer in search_of(net).layers)))
    net(torch.ones(2, 16)).square().sum().backward()
    ticket = extract(net)
    plain = ticket.apply(nn.Sequential(nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3)))
    assert verify(ticket).holds and torch.equal(plain(torch.ones(2, 16)), net.eval()(torch.ones(2, 16)))


def test_the_weight_has_the_type_that_the_network_has_now():
    net = attach(nn.Sequential(nn.Linear(300, 256), nn.ReLU(), nn.Linear(256, 8)).bfloat16(), er_p=0.05)
    net.float()
    assert net[0].weight.dtype is torch.float32
    net(torch.ones(2, 300)).sum().backward()
    net[0].bfloat16()
    with pytest.raises(UsageError, match=r"scores have dtype torch\.bfloat16 and are ranked as float32"):
        net(torch.ones(2, 300))


@pytest.mark.parametrize("value", [1 / 3, 1e39])
def test_given_weights_that_float32_does_not_hold_are_refused(value):
    net = nn.Linear(3, 2, dtype=torch.float64)
    nn.init.constant_(net.weight, value)
    with pytest.raises(UsageError, match=r"^weight has weights of torch.float64 that are none of float32, in which tickets hold"):
        attach(net, er_p=1.0, k=1.0, weights="given")
    net.float().double()
    if value < 1:
        before = net.weight.clone()
        assert torch.equal(merge(attach(net, er_p=1.0, k=1.0, weights="given")).weight, before)

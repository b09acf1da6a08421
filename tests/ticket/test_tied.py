"""A ticket with tied layers that is applied to be trained: the zeros stay zero in every layer, and what is tied stays tied."""

import copy

import pytest
import torch
from torch import nn

from popup.ticket import release
from tests.ticket.test_trainable import Averaged, Noisy, check, ticket_of, train, weights


class Twice(nn.Module):
    """One weight in two layers of different parameters, and one layer under two names."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64, bias=False), nn.Linear(64, 4)
        self.b.weight, self.again = self.a.weight, self.c
        self.b.register_parameter("gain", nn.Parameter(torch.ones(1)))

    def forward(self, x):
        return self.again(torch.relu(self.b(torch.relu(self.a(x.flatten(1)))) * self.b.gain))


class Language(nn.Module):
    """A head that is tied to the embedding, as language models have it."""

    def __init__(self):
        super().__init__()
        self.embedding, self.middle, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(torch.relu(self.middle(self.embedding((x.flatten(1)[:, 0].abs() * 100).long() % 20))))


TIED = {Twice: ({}, ("a.weight", "b.weight")),
        Language: ({"only": ("embedding", "middle", "head")}, ("embedding.weight", "head.weight"))}


def built(build, meta):
    """Without memory if `meta`; to("meta") would untie it."""
    with torch.device("meta" if meta else "cpu"):
        return build()


@pytest.mark.parametrize("optimiser", [torch.optim.AdamW, Noisy, Averaged])
@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize("build", TIED)
def test_what_is_tied_stays_tied_and_keeps_its_zeros(build, meta, optimiser):
    recipe, (one, other) = TIED[build]
    ticket = ticket_of(build, **recipe)
    (layer,) = [layer for layer in ticket.layers if layer.spec.name == one]
    assert layer.spec.names == (one, other)
    fresh = build()
    net = ticket.apply(built(build, meta), trainable=True)
    before = {name: tensor.detach().clone() for name, tensor in weights(net, ticket).items()}
    assert len(list(net.parameters())) == len(list(fresh.parameters()))
    for found in (copy.deepcopy(net), net):
        train(found, optimiser(list(found.parameters()), lr=0.01))
        check(found, ticket, before)
        held, modules = found.state_dict(keep_vars=True), [found.get_submodule(name.rpartition(".")[0]) for name in (one, other)]
        first, second = (held[f"{name.rpartition('.')[0]}.parametrizations.weight.original"] for name in (one, other))
        assert first is second and torch.equal(modules[0].weight, modules[1].weight)
        wanted = modules[0].weight.detach().clone()
        assert release(found) is found and modules[0].weight is modules[1].weight and torch.equal(modules[0].weight, wanted)
        assert [type(module) for module in found.modules()] == [type(module) for module in fresh.modules()]
        for remove in (True, False):
            names = [[name for name, _ in part.named_parameters(remove_duplicate=remove)] for part in (found, fresh)]
            assert names[0] == names[1]
    train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert torch.equal(*(net.state_dict()[name] for name in (one, other)))


@pytest.mark.parametrize("kind", [{}, {"sparse": True}, {"trainable": True}], ids=str)
@pytest.mark.parametrize("build", TIED)
def test_a_tied_network_without_memory_stays_tied(build, kind):
    ticket, (one, other) = ticket_of(build, **TIED[build][0]), TIED[build][1]
    net = release(ticket.apply(built(build, True), **kind))
    assert net.get_parameter(one) is net.get_parameter(other)
    assert torch.equal(net.get_parameter(one), ticket.state_dict()[one])


def test_a_ticket_of_tied_layers_on_a_network_that_ties_none_holds_both():
    def untied():
        net = Twice()
        net.b.weight = nn.Parameter(net.a.weight.detach().clone())
        return net

    ticket = ticket_of(Twice)
    net, mask = ticket.apply(untied(), trainable=True), ticket.layers[0].mask(ticket.recipe)
    train(net, Noisy(list(net.parameters()), lr=0.01))
    assert not torch.equal(net.a.weight, net.b.weight) and not net.a.weight[~mask].any() and not net.b.weight[~mask].any()

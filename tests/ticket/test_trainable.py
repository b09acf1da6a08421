"""A ticket that is applied to be trained: its zeros stay zero in every optimiser of torch, and in ones that are worse."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from popup import UsageError, attach, extract
from popup.ticket import release

IMAGE = (1, 8, 8)


class Noisy(torch.optim.SGD):
    """Moves every weight at every step, whatever its gradient is."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=0.01)


class Averaged(torch.optim.SGD):
    """Writes a moving average to the weights, as schedule-free optimisers do."""

    @torch.no_grad()
    def step(self, closure=None):
        before = [parameter + 0.01 for parameter in self.param_groups[0]["params"]]
        super().step(closure)
        for parameter, old in zip(self.param_groups[0]["params"], before, strict=True):
            parameter.data = old.lerp(parameter, 0.5)


OPTIMISERS = {name: kind for name, kind in vars(torch.optim).items()
              if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer}
OPTIMISERS |= {"Noisy": Noisy, "Averaged": Averaged}
WISHES = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True, "amsgrad": True}


def ticket_of(build, **recipe):
    net = attach(build(), **{"er_p": 0.5, "k": 0.4, "seed": 3, **recipe})
    return extract(net)


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12, bias=False), nn.ReLU(), nn.Linear(12, 4, bias=False))


def train(net, optimiser, steps=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images, labels = torch.randn(16, *IMAGE, generator=generator), torch.randint(0, 4, (16,), generator=generator)

        def closure(images=images, labels=labels):
            optimiser.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            return loss

        optimiser.step(closure)


def weights(net, ticket):
    return {layer.spec.name: getattr(net.get_submodule(layer.spec.name.rpartition(".")[0]), layer.spec.name.rpartition(".")[2])
            for layer in ticket.layers}


def check(net, ticket, before):
    """Zeros are zeros, and what is kept has moved."""
    for layer in ticket.layers:
        mask, now = layer.mask(ticket.recipe), weights(net, ticket)[layer.spec.name]
        assert int(mask.sum()) == layer.kept and bool((now[~mask] == 0).all())
        assert float((now != before[layer.spec.name])[mask].float().mean()) > 0.5


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_zeros_stay_zero_in_every_optimiser(name):
    ticket, kind = ticket_of(plain), OPTIMISERS[name]
    net = ticket.apply(plain(), trainable=True)
    before = {name: tensor.detach().clone() for name, tensor in weights(net, ticket).items()}
    assert all(torch.equal(before[name], tensor) for name, tensor in ticket.state_dict().items())
    takes = inspect.signature(kind).parameters
    optimiser = kind(list(net.parameters()), **{wish: value for wish, value in WISHES.items() if wish in takes})
    if name == "SparseAdam":  # no linear layer has sparse gradients, masked or not
        with pytest.raises(RuntimeError, match="does not support dense gradients"):
            train(net, optimiser)
        return
    train(net, optimiser)
    check(net, ticket, before)
    logits = net(torch.randn(5, *IMAGE, generator=torch.Generator().manual_seed(2)))
    done = release(net)
    assert sorted(done.state_dict()) == sorted(plain().state_dict()) and all(map(nn.Parameter.is_leaf.__get__, done.parameters()))
    check(done, ticket, before)
    assert torch.equal(done(torch.randn(5, *IMAGE, generator=torch.Generator().manual_seed(2))), logits)


@pytest.mark.parametrize("name", [name for name in ("Muon", "Noisy", "Averaged") if name in OPTIMISERS])  # torch 2.6 has no Muon
def test_masked_gradients_alone_would_not_hold_them(name):
    ticket = ticket_of(plain)
    net = ticket.apply(plain()).requires_grad_(True)
    for layer in ticket.layers:
        mask = layer.mask(ticket.recipe)
        net.get_parameter(layer.spec.name).register_hook(lambda gradient, mask=mask: gradient * mask)
    train(net, OPTIMISERS[name](list(net.parameters()), lr=0.01))
    assert any(bool((net.get_parameter(layer.spec.name)[~layer.mask(ticket.recipe)] != 0).any()) for layer in ticket.layers)


@pytest.mark.parametrize(("build", "recipe"), [
    (lambda: models.small_conv(IMAGE, 4, (4, 6)), {}), (lambda: models.resnet18(IMAGE, 4, (4, 4, 6, 6)), {"method": "signed"}),
    (lambda: models.vit(IMAGE, 4, width=1 / 16), {}), (lambda: models.mlp(IMAGE, 4, (16, 8)), {"bias": "search"}),
    (lambda: models.mlp(IMAGE, 4, (16, 8)), {"mask": "given", "er_p": None, "masks": {
        "1.weight": torch.rand(16, 64) < 0.5, "3.weight": torch.rand(8, 16) < 0.5, "5.weight": torch.rand(4, 8) < 0.5}})])
def test_each_kind_of_network_learns_and_keeps_its_zeros(build, recipe):
    ticket = ticket_of(build, **recipe)
    net = ticket.apply(build(), trainable=True)
    before = {name: tensor.detach().clone() for name, tensor in weights(net, ticket).items()}
    others = {name for name, parameter in net.named_parameters() if not name.endswith("original")}
    start = {name: net.get_parameter(name).detach().clone() for name in others}
    train(net.train(), torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1))
    check(net, ticket, before)
    assert all(not torch.equal(start[name], net.get_parameter(name)) for name in others), "biases and norms learn too"
    names = list(build().state_dict())
    assert list(release(net).state_dict()) == names and [name for name, _ in net.named_parameters()] == [
        name for name, _ in build().named_parameters()]


def test_attention_keeps_its_zeros():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

        def forward(self, x):
            x = x.flatten(1, 2)
            return self.head(self.attention(x, x, x)[0].mean(1))

    ticket = ticket_of(Attention)
    net = ticket.apply(Attention(), trainable=True)
    before = {name: tensor.detach().clone() for name, tensor in weights(net, ticket).items()}
    train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    check(net, ticket, before)


def test_an_infinite_gradient_and_an_assignment_leave_zeros_zero():
    ticket = ticket_of(plain)
    net = ticket.apply(plain(), trainable=True)
    layer = ticket.layers[0]
    mask = layer.mask(ticket.recipe)
    (net[1].weight * torch.where(mask, 1.0, torch.inf)).sum().backward()
    original = net[1].parametrizations.weight.original
    assert bool((original.grad[~mask] == 0).all()) and bool((original.grad[mask] == 1).all())
    with torch.no_grad():
        original.fill_(torch.nan)
    assert bool((net[1].weight[~mask] == 0).all())
    net[1].weight = torch.ones(12, 64)
    assert torch.equal(net[1].weight, mask.float())


def test_a_copy_is_released_by_itself():
    ticket = ticket_of(plain)
    net = ticket.apply(plain(), trainable=True)
    other = release(copy.deepcopy(net))
    assert type(other[1].weight) is nn.Parameter and other[1].weight.requires_grad
    train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert not torch.equal(net[1].weight, other[1].weight) and list(release(other).state_dict()) == ["1.weight", "3.weight"]


def test_a_weight_that_is_to_learn_keeps_its_memory():
    ticket, net = ticket_of(plain), plain()
    weight, place = net[1].weight, net[1].weight.data_ptr()
    ticket.apply(net, trainable=True)
    original = net[1].parametrizations.weight.original
    assert original is weight and original.data_ptr() == place and torch.equal(original, ticket.state_dict()["1.weight"])


def test_zeros_are_there_after_to_empty_and_are_not_made_up_after_meta():
    ticket = ticket_of(plain)
    net = ticket.apply(plain(), trainable=True)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.to_empty(device="cpu").load_state_dict(state)
    before = {name: tensor.detach().clone() for name, tensor in weights(net, ticket).items()}
    train(net, torch.optim.SGD(net.parameters(), lr=0.1))
    check(net, ticket, before)
    with pytest.raises(UsageError, match=r"were left behind .* apply the ticket to a network that has its memory"):
        net.to("meta").to_empty(device="cpu")


class Positions(nn.Module):
    """A network with a table that does not learn."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.linspace(-1, 1, 64), requires_grad=False)
        self.first, self.last = nn.Linear(64, 12), nn.Linear(12, 4)
        self.first.weight.requires_grad_(False)

    def forward(self, images):
        return self.last(self.first(images.flatten(1) + self.positions).relu())


def test_what_the_network_holds_fixed_beside_its_weights_stays_as_in_sweeps():
    ticket, net = ticket_of(Positions), Positions()
    ticket.apply(net, trainable=True)
    fixed = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert fixed == {"positions"}
    again = ticket.apply(ticket.apply(Positions()), trainable=True)
    assert all(parameter.requires_grad for parameter in again.parameters()), "what apply had frozen learns"


def test_the_remedy_for_what_holds_zeros_is_one():
    ticket = ticket_of(plain)
    net = ticket.apply(plain(), trainable=True)
    with pytest.raises(UsageError, match=r"already parametrized: .*popup\.ticket\.release"):
        attach(net, er_p=0.5)
    attach(release(net), er_p=0.5)


def test_what_cannot_be_is_refused():
    ticket = ticket_of(plain)
    with pytest.raises(UsageError, match="sparse layers are for inference"):
        ticket.apply(plain(), sparse=True, trainable=True)
    net = ticket.apply(plain(), trainable=True)
    nn.utils.parametrize.register_parametrization(net[1], "weight", nn.Identity())
    with pytest.raises(UsageError, match="1 has parametrizations beside the ticket's"):
        release(net)
    assert not any(parameter.requires_grad for parameter in ticket.apply(plain()).parameters())

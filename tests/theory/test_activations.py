"""Targets with leaky ReLU, tanh and sigmoid: built of sources with the same activation, within the certain bound."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from models import MODELS
from popup.errors import UsageError
from popup.source.layer_source import draw_layer
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.theory.activation import Activation
from popup.theory.budget import suprema
from popup.theory.construction import construct
from popup.theory.copies import Copies
from popup.theory.exact import make_exact_plan
from popup.theory.plan import make_plan
from popup.theory.reading import read_target
from popup.theory.wish import Wish
from popup.ticket import load, verify
from popup.ticket.assembled import assemble

LOW, HIGH = -1.0, 2.0


def network(activation, *sizes, size=0.6):
    torch.manual_seed(0)
    modules = [nn.Flatten()]
    for before, after in pairwise(sizes):
        modules += [nn.Linear(before, after), activation()]
    net = nn.Sequential(*modules[:-1]).requires_grad_(False)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -size, size)
    return net


def built(net, image, wish, low=LOW, path=None, high=HIGH, seed=0):
    """(plan, construction, ticket, the largest gap on random inputs and corners)."""
    target = read_target(net, image, low, high)
    plan = make_plan(target, 0.5, wish)
    source = MODELS[f"chain:{target.source(plan.doubled)}"](image, target.widths[-1], plan.widths)
    layers = find_layers(source)
    gains = " ".join(["0.5", *sorted(f"{layer.name}={size / sqrt(3)!r}" for layer, size in
                                     zip(layers, plan.gains, strict=True))]) if plan.gains else 1 / sqrt(3)
    recipe = Recipe(er_p=0.5, k=1.0, weights="uniform", scale="unit", gain=gains, seed=seed)
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = assemble(recipe, found.layers, found.spare, {})
    ticket = ticket if path is None else load(ticket.save(path))
    x = torch.rand(400, *image) * (high - low) + low
    x = torch.cat([x, torch.where(x > (low + high) / 2, high, low)])
    with torch.no_grad():
        gap = float((ticket.apply(source)(x) / found.multiple - net(x)).abs().max())
    return plan, found, ticket, gap


CASES = {
    "tanh": (nn.Tanh, (3, 4, 2), Wish(0.05)),
    "tanh, proved": (nn.Tanh, (3, 3, 3, 2), Wish(0.05, doubled=True)),
    "tanh, the proof planned for": (nn.Tanh, (3, 3, 2), Wish(0.1, certain=True)),
    "sigmoid, proved": (nn.Sigmoid, (3, 3, 2), Wish(0.02, doubled=True)),
    "leaky": (lambda: nn.LeakyReLU(0.2), (3, 4, 3, 2), Wish(0.05)),
    "leaky, the proof planned for": (nn.LeakyReLU, (3, 3, 2), Wish(0.1, certain=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_target_is_met_by_a_ticket_of_its_own_activation(name, tmp_path):
    activation, sizes, wish = CASES[name]
    plan, found, ticket, gap = built(network(activation, *sizes), (1, 1, 3), wish, path=tmp_path / "t.safetensors")
    assert 0 < gap <= min(found.guaranteed + 1e-6, wish.epsilon) and verify(ticket).holds
    assert found.guaranteed <= wish.epsilon or not (wish.doubled or wish.certain)
    if activation is not nn.Tanh and activation is not nn.Sigmoid:
        assert not plan.gains
        return
    sizes = [np.abs(draw_layer(ticket.recipe, layer.spec, layer.p_l).values).max() for layer in ticket.layers]
    assert found.multiple == pytest.approx(1) and all(0.9 * gain < size <= gain * (1 + 1e-6)
                                                      for size, gain in zip(sizes, plan.gains, strict=True))


def test_what_copies_of_neurons_bend_is_counted_of_neurons_as_they_are_built(monkeypatch):
    """They may be larger than the target's, by what they are off by."""
    bent, counted = Copies.bent, []
    monkeypatch.setattr(Copies, "bent", lambda copies, activation, bound, last: counted.append((copies, bound)) or bent(
        copies, activation, bound, last))
    net = network(nn.Tanh, 3, 3, 2, size=0.02)
    built(net, (1, 1, 3), Wish(0.005, doubled=True))
    largest = [float(bound.max()) for bound in suprema(read_target(net, (1, 1, 3), LOW, HIGH))]
    error = (counted[1][0].error / np.abs(counted[1][0].multiple).clip(1e-9)).max()
    assert counted[0][1] == largest[0] and counted[1][1] == pytest.approx(largest[1] + error) and error > 0.002 * largest[1]


@pytest.mark.parametrize("size", [0.05, 3.0])
def test_the_weights_of_a_tanh_source_are_as_large_as_the_target_asks(size):
    plan, found, _, gap = built(network(nn.Tanh, 3, 4, 2, size=size), (1, 1, 3), Wish(0.1 * size))
    assert gap < 0.1 * size and gap <= found.guaranteed + 1e-6
    assert plan.gains[0] * plan.gains[1] == (0.125 if size < 1 else 8) and 0.5 < plan.gains[2] / size < 2


def test_a_convolutional_target_with_leaky_relu_and_one_with_tanh():
    for word, pool, wish in (("leaky0.1", "avg2", Wish(0.2)), ("tanh", "max2", Wish(0.2)),
                             ("tanh", "max2", Wish(0.2, doubled=True))):
        torch.manual_seed(0)
        net = MODELS[f"chain:conv3p1-{word}-{pool}-conv3p1-{word}-flatten-linear"]((1, 4, 4), 2, (2, 2)).requires_grad_(False)
        _, found, _, gap = built(net, (1, 4, 4), wish)
        assert gap < 0.2 and gap <= found.guaranteed + 1e-6 and (found.guaranteed <= 0.2 or not wish.doubled)


def test_inputs_of_one_sign_need_one_branch_of_a_leaky_relu():
    net = network(lambda: nn.LeakyReLU(0.5), 3, 3, 2)
    plan, found, _, gap = built(net, (1, 1, 3), Wish(0.05), low=0.0)
    assert plan.units[0] == 4 and gap < 0.05 and gap <= found.guaranteed + 1e-6


def near(activation, bias, weight=1.0):
    """w x + b, behind an activation of the input, and one more layer."""
    net = nn.Sequential(nn.Flatten(), activation, nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).requires_grad_(False)
    for layer, values in ((net[2], (weight, bias)), (net[4], (1.0, 0.0))):
        nn.init.constant_(layer.weight, values[0]), nn.init.constant_(layer.bias, values[1])
    return net


@pytest.mark.parametrize(("activation", "low", "high", "bounds"), [
    (nn.ReLU(), -2.0, -0.5, [0.0, 0.5]), (nn.LeakyReLU(0.5), -2.0, 1.0, [1.0, 1.5]),
    (nn.Tanh(), 0.5, 2.0, [0.9640276, 1.4640276])])
def test_the_domain_of_the_first_layer_is_behind_what_stands_before_it(activation, low, high, bounds):
    """-2 to -1/2 become 0 behind a ReLU, which is nowhere in the domain; the bound was one of other inputs."""
    target = read_target(near(activation, 0.5), (1, 1, 1), low, high)
    np.testing.assert_allclose(np.concatenate(suprema(target)), bounds, atol=1e-6)
    for seed in range(3):
        torch.manual_seed(seed)
        _, found, _, gap = built(near(activation, 0.5), (1, 1, 1), Wish(0.02, doubled=True), low, high=high, seed=seed)
        assert gap <= found.guaranteed + 1e-6 <= 0.02


@pytest.mark.parametrize("activation", [Activation(), Activation("leaky", 0.3), Activation("tanh")])
def test_an_input_is_the_sum_of_its_parts(activation):
    for low, high in ((-1.0, 2.0), (0.0, 2.0), (-3.0, -0.5)):
        x, parts = np.linspace(low, high, 50), activation.parts(low, high)
        if activation.homogeneous:
            np.testing.assert_allclose(sum(factor * activation(sign * x) for sign, factor in parts), x, atol=1e-12)
            assert len(parts) == 1 + (low < 0 < high)
        else:
            assert (np.abs(activation(0.1 * x) - 0.1 * x) <= activation.bent(0.1 * x) + 1e-15).all() and parts == [(1, 1.0)]


REFUSED = {
    "two kinds": (lambda: nn.Sequential(*network(nn.Tanh, 3, 3, 2), nn.ReLU()), {}, "it has relu and tanh, and a source has one"),
    "at the end": (lambda: nn.Sequential(*network(nn.Sigmoid, 3, 3, 2), nn.Sigmoid()), {}, "its Sigmoid stands before"),
    "slope": (lambda: network(lambda: nn.LeakyReLU(1.5), 3, 3, 2), {}, "its LeakyReLU has the slope 1.5"),
    "leaky, 2L": (lambda: network(nn.LeakyReLU, 3, 3, 2), {"doubled": True}, "which is not built: give --depth L[+]1"),
    "normal weights": (lambda: network(nn.Tanh, 3, 3, 2), {"weights": "kaiming_normal"}, "leave --weights out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_built_is_refused_in_one_line(name):
    make, wish, words = REFUSED[name]
    with pytest.raises(UsageError, match=words) as error:
        make_plan(read_target(make(), (1, 1, 3), LOW, HIGH), 0.5, Wish(0.1, **wish))
    assert "\n" not in str(error.value)


def test_no_exact_ticket_is_made_of_another_activation():
    with pytest.raises(UsageError, match="the target has tanh, of which no exact ticket is made: leave --bits out"):
        make_exact_plan(read_target(network(nn.Tanh, 3, 3, 2), (1, 1, 3), 0.0, HIGH), 0.5, Wish())

"""What a construction promises: delta over sources, the proof, exact tickets, twice the depth, known multiples, domains."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from models import MODELS
from popup.errors import UsageError
from popup.source import blocks
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.theory import construction
from popup.theory.construction import construct
from popup.theory.exact import make_exact_plan, quantise
from popup.theory.plan import make_plan
from popup.theory.reading import read_target
from popup.theory.wish import Wish
from popup.ticket import verify
from popup.ticket.assembled import assemble

LOW, HIGH = -1.0, 1.0


def network(*sizes, last=1.0, seed=0):
    """An MLP with weights up to 0.5, those of its last layer up to `last`."""
    torch.manual_seed(seed)
    modules = [nn.Flatten()]
    for before, after in pairwise(sizes):
        modules += [nn.Linear(before, after), nn.ReLU()]
    net = nn.Sequential(*modules[:-1]).requires_grad_(False)
    for module in net[1::2]:
        size = last if module is net[-1] else 0.5
        nn.init.uniform_(module.weight, -size, size), nn.init.uniform_(module.bias, -size, size)
    return net


def built(target, plan, p, seed=0, weights="uniform"):
    """(construction, ticket, its network)."""
    gain = 15.0 if weights == "grid" else 1 / sqrt(3)
    recipe = Recipe(er_p=p, k=1.0, weights=weights, scale="unit", gain=gain, seed=seed)
    source = MODELS[f"chain:{target.source(plan.doubled)}"]((1, 1, target.widths[0]), target.widths[-1], plan.widths)
    layers = find_layers(source)
    assert sum(layer.entries for layer in layers) == plan.entries(target)
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = assemble(recipe, found.layers, found.spare, {})
    return found, ticket, ticket.apply(source)


def test_weights_near_1_in_the_last_layer_are_met_in_all_but_a_share_delta_of_sources():
    """Each output has one copy: planned so that 95% of its parameters are met 5 of 20 sources missed, by up to 56 epsilon."""
    target = read_target(network(7, 3), (1, 1, 7), LOW, HIGH)
    plan = make_plan(target, 0.9, Wish(0.01, delta=0.05))
    bounds = [built(target, plan, 0.9, seed)[0].guaranteed for seed in range(20)]
    assert sum(bound > 0.01 for bound in bounds) <= 2
    assert plan.copies[0] > make_plan(target, 0.9, Wish(0.01, delta=0.4)).copies[0]


def test_the_proof_is_planned_for():
    target = read_target(network(5, 4, 4, 3), (1, 1, 5), LOW, HIGH)
    usual, sure = (built(target, make_plan(target, 0.7, Wish(0.2, certain=certain)), 0.7)[0] for certain in (False, True))
    assert sure.guaranteed <= 0.2 < usual.guaranteed


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 3, 3, 2)])
def test_twice_the_depth_has_one_copy_of_each_neuron_and_is_proved_by_the_budget(sizes):
    net = network(*sizes)
    target = read_target(net, (1, 1, sizes[0]), LOW, HIGH)
    plan = make_plan(target, 0.7, Wish(0.05, doubled=True))
    assert plan.widths[1::2] == tuple(width + 1 for width in sizes[1:-1]) and len(plan.widths) == 2 * len(sizes) - 3
    found, ticket, plain = built(target, plan, 0.7)
    x = torch.rand(400, 1, 1, sizes[0]) * 2 - 1
    gap = float((plain(x) / found.multiple - net(x)).abs().max())
    assert gap < found.guaranteed <= 0.05 and verify(ticket).holds


@pytest.mark.parametrize("doubled", [False, True])
def test_an_exact_ticket_is_its_target_bit_for_bit(doubled):
    net = network(6, 4, 3)
    target, whole, size = quantise(read_target(net, (1, 1, 6), 0.0, 16.0), 4)
    with torch.no_grad():
        for module, layer in zip(net[1::2], target.layers, strict=True):
            module.weight.copy_(torch.from_numpy(layer.weight)), module.bias.copy_(torch.from_numpy(layer.bias))
    assert all(np.abs(layer.weight).max() <= 7 and (layer.weight == np.rint(layer.weight)).all() for layer in whole.layers)
    plan = make_exact_plan(whole, 0.5, Wish(doubled=doubled))
    found, ticket, plain = built(whole, plan, 0.5, weights="grid")
    x = torch.randint(0, 17, (2000, 1, 1, 6)).float()
    assert found.guaranteed == 0 and torch.equal(plain(x) / (found.multiple * size), net(x)) and verify(ticket).holds
    assert all(float(values.abs().max()) <= 25 and bool((values == values.round()).all())
               for values in plain.state_dict().values())


@torch.no_grad()
def pooled(*first):
    """A linear network behind steps on an image of 4 x 4, and what it is as whole numbers."""
    net = nn.Sequential(*first, *network(4, 3, 2))
    target, *found = quantise(read_target(net, (1, 4, 4), 0.0, 16.0), 4)
    for module, layer in zip((net[-3], net[-1]), target.layers, strict=True):
        module.weight.copy_(torch.from_numpy(layer.weight)), module.bias.copy_(torch.from_numpy(layer.bias))
    return net, found


def test_averages_of_whole_numbers_are_exact_in_parts_of_one(monkeypatch):
    net, (whole, size) = pooled(nn.AvgPool2d(2))
    assert whole.fractions == [4, 4] and whole.scaled(2).fractions == [4, 4]
    assert read_target(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(2, 2, 1), nn.AvgPool2d((1, 2)),
                                     nn.ReLU(), nn.Flatten()), (1, 4, 4), 0.0, 16.0).fractions == [4, 8]
    plan = make_exact_plan(whole, 0.5, Wish())
    recipe = Recipe(er_p=0.5, k=1.0, weights="grid", scale="unit", gain=15.0)
    source = MODELS[f"chain:{whole.source()}"]((1, 4, 4), 2, plan.widths)
    layers = find_layers(source)
    found = construct(whole, plan, recipe, layers, recipe.densities(layers))
    plain = assemble(recipe, found.layers, found.spare, {}).apply(source)
    x = torch.randint(0, 17, (500, 1, 4, 4)).float()
    assert torch.equal(plain(x) / (found.multiple * size), net(x)) and found.guaranteed == 0
    monkeypatch.setattr(construction, "WHOLE", 2.0**17)
    with pytest.raises(UsageError, match=r"sums of up to .* of 4 parts of 1, as averages make could arise"):
        construct(whole, plan, recipe, layers, recipe.densities(layers))


@pytest.mark.parametrize(("first", "words"), [
    ((nn.AvgPool2d(3, 1),), "the target has avg3s1, and averages of 9 whole numbers are rounded"),
    ((nn.MaxPool2d(2), nn.Tanh()), "the target has tanh, of which no exact ticket is made")])
def test_what_makes_no_whole_numbers_has_no_exact_ticket(first, words):
    with pytest.raises(UsageError, match=words):
        make_exact_plan(pooled(*first)[1][0], 0.5, Wish())


def test_a_layer_of_zeros_cannot_be_quantised():
    net = network(3, 2, 2)
    nn.init.zeros_(net[1].weight)
    with pytest.raises(UsageError, match="layer 1 of the target has no weight but 0"):
        quantise(read_target(net, (1, 1, 3), 0.0, 16.0), 4)


def test_exact_sums_need_whole_inputs():
    _, whole, _ = quantise(read_target(network(3, 2), (1, 1, 3), 0.0, 1.5), 3)
    with pytest.raises(UsageError, match=r"inputs lie in \[0, 1\.5\]: exact sums need whole numbers"):
        make_exact_plan(whole, 0.5, Wish())


def test_a_target_of_large_weights_becomes_a_known_part_of_itself():
    net = network(4, 3, 2, last=40.0)
    target = read_target(net, (1, 1, 4), LOW, HIGH)
    plan = make_plan(target, 0.8, Wish(0.5))
    found, _, plain = built(target, plan, 0.8)
    x = torch.rand(400, 1, 1, 4) * 2 - 1
    assert found.multiple == pytest.approx(plan.multiples[-1]) and found.multiple < 0.2
    assert float((plain(x) / found.multiple - net(x)).abs().max()) < 0.5


def test_a_relu_at_the_end_moves_nothing_further():
    """x^(L) = relu(h^(L)): what is near before it is as near behind it."""
    net = nn.Sequential(*network(4, 3, 2), nn.ReLU())
    target = read_target(net, (1, 1, 4), LOW, HIGH)
    found, _, plain = built(target, make_plan(target, 0.8, Wish(0.05)), 0.8)
    x = torch.rand(400, 1, 1, 4) * 2 - 1
    outputs = plain(x)
    assert float(outputs.min()) == 0 and float((outputs / found.multiple - net(x)).abs().max()) < 0.05


def test_a_ticket_does_not_depend_on_the_blocks(monkeypatch):
    target = read_target(network(5, 4, 3), (1, 1, 5), LOW, HIGH)
    plan = make_plan(target, 0.7, Wish(0.1))
    whole, _, _ = built(target, plan, 0.7)
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    parts, ticket, _ = built(target, plan, 0.7)
    assert whole.guaranteed == parts.guaranteed
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert np.array_equal(one.codes, other.codes) and one.weights_hash == other.weights_hash
        places, values = other.kept_weights(ticket.recipe, ticket.book)
        assert np.array_equal(places, np.flatnonzero(one.weight(ticket.recipe, ticket.book).numpy()))
        assert torch.equal(values, one.weight(ticket.recipe, ticket.book).view(-1)[torch.from_numpy(places)])

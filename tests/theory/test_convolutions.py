"""Tickets built for convolutional targets: channels in the place of neurons, an edge a tap; pooling, padding, biases."""

from dataclasses import replace
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from models import MODELS
from popup.source.layer_source import draw_layer
from popup.source.layers import Layer, find_layers
from popup.source.recipe import Recipe
from popup.theory.budget import plan_tolerances, suprema
from popup.theory.construction import construct
from popup.theory.copies import NONE, Copies
from popup.theory.plan import make_plan as planned
from popup.theory.reading import read_target
from popup.theory.stages import stages
from popup.theory.wish import Wish
from popup.ticket import load, verify
from popup.ticket.assembled import assemble

LOW, HIGH, EPSILON = -1.0, 1.5, 0.1
IMAGE = (2, 5, 6)
TARGETS = {
    "max pool": lambda: [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.ReLU(),
                         nn.Flatten(), nn.Linear(6, 2)],
    "average pool": lambda: [nn.Conv2d(2, 3, 3, 2, 1), nn.AvgPool2d((1, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(9, 3),
                             nn.ReLU(), nn.Linear(3, 2)],
    "groups, dilated": lambda: [nn.MaxPool2d(2, 1, 1), nn.Conv2d(2, 4, (2, 3), padding=(0, 2), dilation=(1, 2), groups=2),
                                nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    "every pixel": lambda: [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, 2, 1), nn.Flatten()],
}


def make_plan(target, p, epsilon, **wish):
    return planned(target, p, Wish(epsilon, **wish))


def target_net(name):
    """A small convolutional network with weights as large as trained ones, and biases that are larger."""
    torch.manual_seed(0)
    net = nn.Sequential(*TARGETS[name]())
    for parameter in net.parameters():
        nn.init.uniform_(parameter, *((0.3, 0.6) if parameter.dim() == 1 else (-0.4, 0.4)))
    return net.requires_grad_(False)


def inputs(count=300):
    """Random images of the domain, and as many of its corners."""
    images = torch.rand(2 * count, *IMAGE, generator=torch.Generator().manual_seed(1)) * (HIGH - LOW) + LOW
    images[count:] = torch.where(images[count:] > (LOW + HIGH) / 2, HIGH, LOW)
    return images


def source_recipe(p=0.7, weights="uniform"):
    scale, gain = ("unit", 1 / sqrt(3)) if weights == "uniform" else ("edges", sqrt(2))
    return Recipe(er_p=p, k=1.0, weights=weights, scale=scale, gain=gain)


def build(name, p=0.7, low=LOW, weights="uniform"):
    """(target network, target, construction, ticket, plain ticket network)."""
    net = target_net(name)
    target = read_target(net, IMAGE, low, HIGH)
    plan = make_plan(target, p, EPSILON, weights=weights)
    recipe = source_recipe(p, weights)
    source = MODELS[f"chain:{target.source()}"](IMAGE, target.widths[-1], plan.widths)
    layers = find_layers(source)
    assert sum(layer.entries for layer in layers) == plan.entries(target) and len(layers) == len(target.layers) + 1
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = assemble(recipe, found.layers, found.spare, {})
    return net, target, found, ticket, ticket.apply(source)


@pytest.mark.parametrize(("name", "p", "low", "weights"), [
    ("max pool", 0.7, LOW, "uniform"), ("max pool", 0.4, LOW, "uniform"), ("average pool", 0.7, LOW, "kaiming_normal"),
    ("groups, dilated", 1.0, LOW, "uniform"), ("every pixel", 0.4, 0.0, "uniform")])
def test_the_ticket_is_within_epsilon_of_its_target_and_keeps_the_laws(name, p, low, weights, tmp_path):
    net, _, found, ticket, plain = build(name, p, low, weights)
    x = inputs().clamp(min=low)
    gap = float((plain(x) / found.multiple - net(x)).abs().max())
    assert 0 < gap < EPSILON and gap < found.guaranteed < 100 * EPSILON
    again = load(ticket.save(tmp_path / "ticket.safetensors"))
    assert verify(again).holds
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in plain.state_dict().items())
    for layer in found.layers:
        weight, edges = plain.state_dict()[layer.spec.name].numpy().reshape(-1), drawn(ticket.recipe, layer).edges
        assert set(np.flatnonzero(weight)) <= set(edges) and layer.codes.shape == edges.shape


def drawn(recipe, layer):
    """The source of a layer as a ticket has it."""
    return draw_layer(recipe, layer.spec, layer.p_l)


def kept_matrices(recipe, found):
    """The edges kept in each layer, [out, in, taps]."""
    for layer in found.layers:
        mask = np.zeros(layer.spec.entries, dtype=bool)
        mask[drawn(recipe, layer).edges[layer.codes]] = True
        yield mask.reshape(*layer.spec.shape[:2], -1)


def constant_channels(maps):
    """bool [channels]: which maps [n, channels, height, width] are one positive number everywhere, to rounding."""
    low, high = maps.amin((0, 2, 3)), maps.amax((0, 2, 3))
    return ((high - low <= 1e-6 * high) & (high > 0)).numpy()


def test_a_bias_uses_the_tap_that_is_never_in_the_padding():
    """Copies of the constant 1 are a constant on the whole map, and only the centre's edges lead from them."""
    _, _, found, ticket, plain = build("every pixel")
    for depth, kept in zip((3, 5), list(kept_matrices(ticket.recipe, found))[1:],
                           strict=True):  # behind the ReLU of layers 0 and 1
        constant, corners = constant_channels(plain[:depth](inputs())), kept[:, :, [0, 2, 6, 8]]
        assert kept[:, constant, 4].any() and corners[:, ~constant].any() and not corners[:, constant].any()


def test_with_biases_from_a_corner_the_border_would_be_wrong():
    net, target, found, _, plain = build("every pixel")
    corner = replace(target, layers=tuple(replace(layer, inside=0) for layer in target.layers))
    wrong = construct(corner, make_plan(corner, 0.7, EPSILON), source_recipe(), [layer.spec for layer in found.layers],
                      [0.7] * 3)
    off = assemble(source_recipe(), wrong.layers, wrong.spare, {}).apply(plain)(inputs()) - net(inputs())
    off = off.abs().view(-1, 2, 3, 3).amax((0, 1))  # [height, width]
    assert float(off[0].min()) > 3 * EPSILON


def test_a_one_by_one_convolution_is_a_linear_layer():
    """One construction: the same bits from the same source, whether its layers are linear or of one tap."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    conv = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.Flatten())
    for one, other in ((conv[0], linear[1]), (conv[2], linear[3])):
        one.weight.data, one.bias.data = other.weight.data[:, :, None, None].clone(), other.bias.data.clone()
    masks = []
    for net, kernel in ((linear, ()), (conv, (1, 1))):
        target = read_target(net, (3, 1, 1), LOW, HIGH)
        plan = make_plan(target, 0.7, EPSILON)
        sizes = [4, *plan.widths, 2]
        layers = [Layer(f"layer {place}", (after, before, *kernel)) for place, (before, after)
                  in enumerate(pairwise(sizes))]
        found = construct(target, plan, source_recipe(), layers, [0.7] * 3)
        masks.append([layer.codes for layer in found.layers])
    assert all(np.array_equal(one, other) for one, other in zip(*masks, strict=True))


def test_each_tap_of_a_copy_is_a_unit_and_the_constant_is_one_at_its_own_tap():
    copies = Copies(np.array([1, 0, NONE, 2]), np.array([1.0, 2, 3, 4]), np.array([0.1, 0.2, 0.3, 0.4]))
    found = copies.at_taps(3, 1, 2)
    assert found.unit.tolist() == [3, 4, 5, 0, 1, 2, NONE, NONE, NONE, NONE, 6, NONE]
    assert found.multiple.tolist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 3 + [4.0] * 3
    assert found.error.tolist() == [0.1] * 3 + [0.2] * 3 + [0.3] * 3 + [0.4] * 3


@pytest.mark.parametrize("name", TARGETS)
def test_the_budget_bounds_what_its_tolerances_do(name):
    """Every weight of every tap and every bias off by its tolerance, in whatever direction: the output is within epsilon."""
    net = target_net(name)
    target, x = read_target(net, IMAGE, LOW, HIGH), inputs()
    seen = []
    hooks = [module.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for module in net
             if isinstance(module, (nn.Conv2d, nn.Linear))]
    wanted = net(x)
    for hook in hooks:
        hook.remove()
    for layer, bound, maps in zip(target.layers, suprema(target), seen, strict=True):
        largest = maps.abs().reshape(len(maps), layer.channels, -1).amax((0, 2)).numpy()
        assert (largest <= bound + 1e-6).all()
    draw, worst = np.random.default_rng(0), 0.0
    for trial in range(20):
        layers = [replace(layer, **{part: getattr(layer, part) + eps * (1 if trial == 0 else draw.choice(
            [-1, 1], getattr(layer, part).shape)) for part in ("weight", "bias")})
            for layer, eps in zip(target.layers, plan_tolerances(target, EPSILON), strict=True)]
        worst = max(worst, float(np.abs(replace(target, layers=tuple(layers))(x.double().numpy()) - wanted.numpy()).max()))
    assert 0.02 * EPSILON < worst <= EPSILON


def test_at_the_border_a_field_holds_zeros_too():
    """Inputs in [1, 2] under weights of -1: the corner, with 4 taps on the map, is larger than the 9 taps inside can be."""
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 2, 4), nn.Flatten()).requires_grad_(False)
    net[0].weight.fill_(-1.0)
    net[0].bias.fill_(10.0)
    target = read_target(net, (1, 4, 4), 1.0, 2.0)
    maps = net[:2](torch.ones(1, 1, 4, 4))
    assert float(maps.max()) == 6.0 and float(maps[0, 0, 1, 1]) == 1.0
    assert suprema(target)[1].tolist() == [10.0]


def test_a_unit_is_a_tap_of_a_channel_of_a_branch():
    target = read_target(target_net("every pixel"), IMAGE, LOW, HIGH)
    first, second = stages(target, make_plan(target, 0.7, EPSILON))
    weights = target.layers[0].weight  # [2, 2 * 9]
    assert np.array_equal(first.goals, np.concatenate([weights, -weights, target.layers[0].bias[:, None]], 1))
    assert first.bounds.tolist() == [HIGH] * 18 + [-LOW] * 18 + [1.0] and first.constant == 36 and first.inside == 4
    one, other = suprema(target)[1]
    assert one != other and second.bounds.tolist() == [one] * 9 + [other] * 9 + [1.0]
    assert second.outputs and not first.outputs and second.constant == 18


@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("low", [LOW, 0.0])
def test_with_few_channels_layer_0_is_wide_enough_for_the_neurons_that_reach_nothing(p, low):
    """The share that the plan counts on, against drawn edges; of 1 input and p = 0.2 most neurons have none."""
    target = read_target(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 4), nn.Flatten()), (1, 4, 4), low, HIGH)
    plan = make_plan(target, p, EPSILON)
    draw = np.random.default_rng(0)
    signs = np.where(draw.random((40_000, 2)) < p, draw.choice([-1, 1], (40_000, 2)), 0)
    reaches = (signs[:, 1] > 0) | ((signs[:, 0] != 0) if low < 0 else (signs[:, 0] > 0))
    assert abs(reaches.mean() - plan.reach[0]) < 0.01
    assert plan.widths[0] * plan.reach[0] >= plan.copies[0] * plan.units[0] > 0.8 * plan.widths[0] * plan.reach[0]

"""A ticket that is built: bits only, inside one source, near its target; verified and read back as any ticket."""

import itertools
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from models import MODELS
from popup.errors import UsageError
from popup.search.methods import BUILT
from popup.source.layer_source import draw_layer
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.theory.budget import plan_tolerances, suprema
from popup.theory.construction import construct
from popup.theory.copies import NONE, Copies, deal, pass_constant
from popup.theory.plan import make_plan as planned
from popup.theory.reading import read_target
from popup.theory.wish import Wish
from popup.ticket import load, verify
from popup.ticket.assembled import assemble, least_fraction
from popup.ticket.hashes import hash_array
from popup.ticket.layer import TicketLayer

LOW, HIGH, EPSILON = -1.0, 2.0, 0.05
IMAGE, CLASSES = (1, 1, 3), 2


def make_plan(target, p, epsilon, **wish):
    return planned(target, p, Wish(epsilon, **wish))


def drawn(recipe, layer):
    """The source of a layer as a ticket has it."""
    return draw_layer(recipe, layer.spec, layer.p_l)


def target_net(seed=0, hidden=(4, 3)):
    """An MLP 3-4-3-2 with biases, of weights about as large as trained ones."""
    torch.manual_seed(seed)
    net = MODELS["mlp"](IMAGE, CLASSES, hidden)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.6, 0.6)
    return net


def inputs(count=500):
    return torch.rand(count, *IMAGE, generator=torch.Generator().manual_seed(1)) * (HIGH - LOW) + LOW


def build(p=0.7, seed=0, net=None, epsilon=EPSILON, weights="uniform", low=LOW):
    """(construction, ticket, plain ticket network) of a target."""
    target = read_target(net or target_net(), IMAGE, low, HIGH)
    plan = make_plan(target, p, epsilon, weights=weights)
    scale, gain = ("unit", 1 / sqrt(3)) if weights == "uniform" else ("edges", sqrt(2))
    recipe = Recipe(er_p=p, k=1.0, weights=weights, scale=scale, gain=gain, seed=seed)
    source = MODELS["mlp_constant"](IMAGE, CLASSES, plan.widths)
    layers = find_layers(source)
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = assemble(recipe, found.layers, found.spare, {})
    return found, ticket, ticket.apply(source)


@pytest.fixture(scope="module")
def built():
    return build()


def difference(net, multiple, wanted):
    with torch.no_grad():
        return float((net(inputs()) / multiple - wanted(inputs())).abs().max())


@pytest.mark.parametrize(("p", "seed", "weights"), [(0.7, 1, "uniform"), (1.0, 0, "uniform"), (0.4, 0, "uniform"),
                                                    (0.7, 0, "kaiming_normal")])
def test_the_ticket_is_within_epsilon_of_its_target(p, seed, weights):
    found, ticket, net = build(p, seed, weights=weights)
    assert difference(net, found.multiple, target_net()) < EPSILON
    assert verify(ticket).holds
    assert found.multiple == pytest.approx(1.0) if weights == "uniform" else found.multiple < 0.5


@pytest.mark.parametrize(("seed", "layer", "size"), [(0, 1, 0.1), (1, 5, 0.1), (2, 3, 0.03)])
def test_a_target_of_small_weights_is_met_as_well(seed, layer, size):
    """Copies of neurons that are blown up to whole weights would be off by more than a small last layer can bear."""
    net = target_net(seed)
    net[layer].weight.data *= size
    net[layer].bias.data *= size
    found, _, plain = build(seed=seed, net=net)
    assert difference(plain, found.multiple, net) < EPSILON / 2 and found.guaranteed < 10 * EPSILON


def test_it_is_an_ordinary_ticket_of_a_source_that_its_recipe_draws(built, tmp_path):
    _, ticket, net = built
    again = load(ticket.save(tmp_path / "ticket.safetensors"))
    assert verify(again).holds and again.settings.method == BUILT and not again.given and not again.constants
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    for layer in again.layers:
        source = drawn(again.recipe, layer)
        weight = state[layer.spec.name].numpy().reshape(-1)
        assert set(np.flatnonzero(weight)) <= set(source.edges) and (np.abs(weight) <= 1).all()
        assert np.array_equal(weight[source.edges][layer.selected], source.values[layer.selected])


def test_a_smaller_epsilon_gives_a_nearer_ticket(built):
    found, _, net = built
    finer, _, nearer = build(epsilon=EPSILON / 30)
    assert difference(nearer, finer.multiple, target_net()) < 0.2 * difference(net, found.multiple, target_net())


def test_the_errors_that_are_reported_are_those_of_the_sums(built):
    """Layer 1 by hand: the effective weight of each unit's first copy, over the branches, against the target's."""
    found, ticket, _ = built
    target = read_target(target_net(), IMAGE, LOW, HIGH)
    first, second = (ticket.state_dict()[layer.spec.name].numpy() for layer in found.layers[:2])
    plan = make_plan(target, 0.7, EPSILON)
    used = np.flatnonzero(second.any(1) & (np.arange(len(second)) % 5 < 4))
    x = inputs().numpy().reshape(-1, 3)
    hidden = np.maximum(np.concatenate([x, np.ones((len(x), 1))], 1) @ first.T, 0) @ second[used].T
    wanted = (x @ target.layers[0].weight.T + target.layers[0].bias) * plan.multiples[1]
    error = np.abs(hidden - wanted[:, used % 5]).max() / plan.multiples[1]
    assert 0 < error <= found.fits[0].largest * (1 + 3 * HIGH) + 1e-6
    assert found.fits[0].parameters == len(second) // 5 * 4 * 7 and found.fits[0].met > 0.9


def full(recipe, layer, kept):
    """The kept edges, by code or by number, as bool of the layer's shape."""
    mask = np.zeros(layer.spec.entries, dtype=bool)
    mask[drawn(recipe, layer).edges[kept]] = True
    return mask.reshape(layer.spec.shape)


def test_the_guaranteed_bound_is_one(built):
    found, _, net = built
    assert difference(net, found.multiple, target_net()) < found.guaranteed < 100 * EPSILON


def test_no_edge_is_kept_into_a_neuron_that_nothing_uses(built):
    found, ticket, _ = built
    masks = [full(ticket.recipe, layer, layer.codes) for layer in found.layers]
    for below, above in itertools.pairwise(masks):
        assert not below[~above.any(0)].any()
    assert (masks[0].sum(1) <= 1).all() and masks[0].any()
    spare = [full(ticket.recipe, layer, numbers) for layer, numbers in zip(found.layers, found.spare, strict=True)]
    assert any(mask.any() for mask in spare[:-1])
    assert not any((kept & extra).any() for kept, extra in zip(masks, spare, strict=True))


def test_inputs_of_one_sign_need_one_branch():
    one, two = (make_plan(read_target(target_net(), IMAGE, low, HIGH), 0.7, EPSILON) for low in (0.0, LOW))
    assert (one.units[0], two.units[0]) == (4, 7)
    found, _, net = build(low=0.0)
    positive = inputs().clamp(min=0)
    with torch.no_grad():
        assert float((net(positive) / found.multiple - target_net()(positive)).abs().max()) < EPSILON


def test_neurons_are_dealt_evenly_to_the_branches_their_edges_reach():
    draw = np.random.default_rng(0)
    weights = np.where(draw.random((300, 5)) < 0.5, draw.uniform(-1, 1, (300, 5)), 0)
    weights[0] = 0
    copies, kept = deal(weights, [1, -1])
    assert (kept.sum(1) == (weights != 0).any(1)).all() or not weights[kept.sum(1) == 0, :-1].any()
    assert copies.unit[0] == NONE and not (kept & (weights == 0)).any()
    counts = np.bincount(copies.unit[copies.unit != NONE], minlength=9)
    assert len(counts) == 9 and counts.min() >= counts.max() - 2
    for neuron in np.flatnonzero(copies.unit != NONE):
        (column,) = np.flatnonzero(kept[neuron])
        weight, unit = weights[neuron, column], copies.unit[neuron]
        assert copies.multiple[neuron] == pytest.approx(abs(weight))
        assert unit == (8 if column == 4 else column + 4 * (weight < 0)) and (column < 4 or weight > 0)


def test_a_constant_is_passed_on_by_positive_edges_alone():
    weights = np.array([[0.5, -0.9, 0.8, 0.0], [-0.1, 0.0, 0.0, -0.2], [0.1, 0.1, 0.0, 0.0]])
    kept = pass_constant(weights, np.array([1.0, 1.0, 0.5, 2.0]), 0.45)
    assert kept.tolist() == [[True, False, False, False], [False] * 4, [True, True, False, False]]


def test_the_most_exact_copies_come_first():
    copies = Copies(np.array([0, 1, 0, 0]), np.array([1.0, 1, 2, 1]), np.array([0.3, 0, 0.4, 0.1]))
    assert copies.of(0).tolist() == [3, 2, 0]


def test_the_budget_bounds_what_its_tolerances_do():
    """Every parameter off by its tolerance, in whatever direction: the output stays within epsilon."""
    target = read_target(target_net(), IMAGE, LOW, HIGH)
    draw, x = np.random.default_rng(0), inputs().double().numpy().reshape(-1, 3)
    hidden = x
    for layer, bound in zip(target.layers, suprema(target), strict=True):
        assert (np.abs(hidden) <= bound + 1e-12).all()
        hidden = np.maximum(hidden @ layer.weight.T + layer.bias, 0)
    worst = 0.0
    for trial in range(50):
        y = x
        for place, (layer, eps) in enumerate(zip(target.layers, plan_tolerances(target, EPSILON), strict=True)):
            off = [eps * (np.ones(part.shape) if trial == 0 else draw.choice([-1, 1], part.shape))
                   for part in (layer.weight, layer.bias)]
            y = y @ (layer.weight + off[0]).T + layer.bias + off[1]
            y = np.maximum(y, 0) if place < 2 else y
        worst = max(worst, float(np.abs(y - target(x)).max()))
    assert 0.02 * EPSILON < worst <= EPSILON


def test_what_the_law_says_cannot_be_is_refused_with_what_would_do():
    target = read_target(target_net(), IMAGE, LOW, HIGH)
    with pytest.raises(UsageError, match=r"width factor 12 is too small at p = 0\.5: .*; (\d+) will do") as error:
        make_plan(target, 0.5, EPSILON, copies=12)
    enough = int(str(error.value).split()[-3])
    assert set(make_plan(target, 0.5, EPSILON, copies=enough).copies) == {enough}
    with pytest.raises(UsageError, match=rf"width factor {enough - 1} is too small"):
        make_plan(target, 0.5, EPSILON, copies=enough - 1)
    with pytest.raises(UsageError, match=r"epsilon is 1e-09: a parameter would need \d+ candidates.*will do"):
        make_plan(target, 0.5, 1e-9)


def test_counts_are_made_exact_with_spare_edges_or_refused(built):
    """Equal layers round together, so that some counts belong to no k."""
    found, built_ticket, _ = built
    source = drawn(built_ticket.recipe, found.layers[0])
    edges = len(source.edges)
    one, spare = np.zeros(edges, dtype=bool), np.array([9, 10])
    one[:5] = True
    more = one.copy()
    more[5] = True
    recipe = Recipe(er_p=0.7, scale="unit")
    layers = [TicketLayer(source.spec, source.p_l, codes, hash_array(source.edges), hash_array(source.values))
              for codes in (one, more)]
    assert 2 * source.kept_at(least_fraction([edges, edges], 11)) == 12
    ticket = assemble(recipe, layers, [spare, spare], {})
    selected = ticket.layers[0].selected
    assert sum(layer.kept for layer in ticket.layers) == 12 and selected[9] and not selected[10]
    with pytest.raises(UsageError, match="no k keeps just 11"):
        assemble(recipe, layers, [np.arange(5), np.arange(5)], {})

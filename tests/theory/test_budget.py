"""The error budget bounds the output, every parameter being off by as much as it allows, in the worst direction."""

import copy
from itertools import pairwise
from math import prod, sqrt

import pytest
import torch
from torch import nn

from popup.errors import UsageError
from popup.theory.budget import plan_tolerances
from popup.theory.law import copies_needed
from popup.theory.odds import PRODUCT
from popup.theory.plan import make_plan as planned
from popup.theory.reading import read_target
from popup.theory.shares import REACH
from popup.theory.wish import Wish


def make_plan(target, p, epsilon, **wish):
    return planned(target, p, Wish(epsilon, **wish))


@pytest.mark.parametrize(("hidden", "sizes", "epsilon"), [(50, (0.0, 0.0), 0.1), (256, (1e-4, 1e-3), 0.1), (16, (0.1, 0.3), 0.1)])
def test_parameters_within_their_tolerances_keep_the_output_within_epsilon(hidden, sizes, epsilon):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    for layer, size in zip((net[1], net[3]), sizes, strict=True):
        nn.init.uniform_(layer.weight, -size, size), nn.init.zeros_(layer.bias)
    tolerances = plan_tolerances(read_target(net, (1, 8, 8), 0.0, 1.0), epsilon)
    net.double()
    other = copy.deepcopy(net)
    with torch.no_grad():
        for layer, tolerance in zip((other[1], other[3]), tolerances, strict=True):
            layer.weight += tolerance
            layer.bias += tolerance
        inputs = torch.ones(1, 1, 8, 8, dtype=torch.float64)
        assert 0 < (other(inputs) - net(inputs)).abs().max() <= epsilon


def chain(*largest):
    """The target of a net whose layers have these largest parameters."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), *[module for _ in largest for module in (nn.Linear(4, 4), nn.ReLU())][:-1])
    with torch.no_grad():
        for layer, value in zip([module for module in net if isinstance(module, nn.Linear)], largest, strict=True):
            layer.bias.zero_()
            layer.weight.mul_(value / layer.weight.abs().max())
    return read_target(net, (1, 2, 2), 0.0, 1.0)


@pytest.mark.parametrize("largest", [(1.1, 1.1), (0.5, 2.4), (0.2, 0.3), (1.0, 1.0, 1.3), (0.8,), (0.1, 0.2, 0.3), (0.01, 9.0)])
def test_no_layer_but_the_first_is_asked_for_less_than_a_unit(largest):
    """In the first layer sums are of products, whose unit is PRODUCT; the last is not to pay for that. Large targets ask
    every layer for as much; of small ones the first layer, whose inputs are exact, makes what is less than a unit."""
    multiples = make_plan(chain(*largest), 0.5, 0.1).multiples
    units = [PRODUCT, *[1.0] * (len(largest) - 1)]
    asked = [value * after / before / unit for value, before, after, unit in zip(largest, multiples, multiples[1:], units,
                                                                                strict=False)]
    even = (prod(largest) * sqrt(3)) ** (1 / len(largest))
    assert asked[1:] == pytest.approx([max(1.0, even)] * (len(largest) - 1)) and max(asked) <= REACH
    assert asked[0] == pytest.approx(even if even > 1 else even ** len(largest))


def test_what_the_first_layer_cannot_make_alone_is_shared():
    multiples, largest = make_plan(chain(*[1e-4] * 3), 0.5, 1e-3).multiples, 1e-4
    first, second, third = (largest * after / before for before, after in pairwise(multiples))
    assert first < second < 0.01 and second == pytest.approx(third)


def test_a_loose_epsilon_leaves_the_largest_parameters_within_reach():
    """A sum of 8 weights reaches 2 in half of the cases, and an output has one copy."""
    assert min(make_plan(chain(1.0, 0.999 * PRODUCT * REACH**2), 0.5, 1000.0).candidates) >= 16
    assert make_plan(chain(0.5, 1.0), 0.5, 1000.0).candidates[-1] >= 11


@pytest.mark.parametrize("p", [0.3, 0.9, 1.0])
def test_hidden_layers_have_copies_to_leave_out(p):
    """A tenth of them and more, beyond those among which a parameter has its candidates; inputs are copied exactly."""
    plan = make_plan(chain(1.0, 1.0, 1.0), p, 0.01, tolerance=0.003)
    inputs, *hidden = (copies / copies_needed(count, p) for copies, count in zip(plan.copies, plan.candidates, strict=True))
    assert inputs == 1 and all(1.1 < share < 1.25 for share in hidden)


def test_a_target_of_larger_weights_becomes_a_known_part_of_itself():
    """What two layers of weights in [-1, 1] reach is 2.31; beyond it the output is as much smaller, and every layer is asked
    for the most."""
    edge = PRODUCT * REACH**2
    assert make_plan(chain(1.0, 0.999 * edge), 0.5, 0.1).multiples[-1] == 1
    for size in (1.01, 40.0):
        multiples = make_plan(chain(1.0, size * edge), 0.5, 10.0).multiples
        assert multiples[-1] == pytest.approx(1 / size) and multiples[1] == pytest.approx(PRODUCT * REACH)
    with pytest.raises(UsageError, match="layer 2 of the target has no parameter but 0"):
        make_plan(chain(1.0, 0.0), 0.5, 0.1)


def test_a_larger_epsilon_never_has_a_finer_budget():
    target = chain(*[1.0] * 6)
    finest = [min(plan_tolerances(target, 2.0**power)) for power in range(-10, 30)]
    assert all(after >= before * 0.98 for before, after in pairwise(finest)) and finest[0] < finest[-1]
    assert min(plan_tolerances(target, 1e300)) > 0


def test_the_epsilon_that_a_refusal_names_will_do():
    target = chain(1.0, 1.0, 1.0)
    with pytest.raises(UsageError, match="will do, or") as error:
        make_plan(target, 0.5, 1e-6)
    named = float(str(error.value).split("; ")[1].split()[0])
    assert make_plan(target, 0.5, named).candidates


@pytest.mark.parametrize(("largest", "epsilon", "words"), [
    ((0.01, 0.01), 1e-7, "will do, or a target of fewer layers$"),
    ((1e-6, 1e-6), 0.1, "no epsilon will do, but a target of larger "),
    ((1.0,) * 8, 1e-3, "smaller weights or fewer layers$"), ((0.8,), 1e-9, r"; \S+ will do$")])
def test_a_refusal_names_other_weights_only_where_they_would_do(largest, epsilon, words):
    with pytest.raises(UsageError, match=words):
        make_plan(chain(*largest), 0.5, epsilon)

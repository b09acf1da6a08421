"""Where nothing is promised of the outputs: what a sum leaves is carried on, and copies that no output takes are not built."""

from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from models import MODELS
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.theory.construction import construct
from popup.theory.copies import Copies
from popup.theory.plan import make_plan
from popup.theory.reading import read_target
from popup.theory.sums import LANES, solve
from popup.theory.thinning import LEFT, LOST, thin
from popup.theory.wish import Wish
from popup.ticket.assembled import assemble

TOLERANCE = 0.02


@pytest.fixture(scope="module")
def solved():
    """(goals, errors plain, errors carried) of two copies each of 20 neurons, most goals below the tolerance."""
    draw = np.random.default_rng(0)
    below = Copies(np.arange(960) % 60, np.ones(960), np.zeros(960))
    weights = draw.uniform(-1, 1, (40, 960)).astype(np.float32)
    goals = np.tile(draw.uniform(0, 1.3 * TOLERANCE, (20, 60)), (2, 1))
    columns = [below.of(unit) for unit in range(60)]
    one, two = (solve(weights, below, columns, np.arange(40), goals, TOLERANCE, threads, thin(goals, TOLERANCE))
                for threads in (1, 3))
    assert (one[0] == two[0]).all() and (one[1].error == two[1].error).all()  # whatever the threads
    chosen, found = one
    sums = np.stack([np.where(chosen, weights, 0)[:, of].sum(1, dtype=np.float64) for of in columns], 1)
    np.testing.assert_allclose(found.error, sums - goals, atol=1e-6)
    return goals, solve(weights, below, columns, np.arange(40), goals, TOLERANCE, 1)[1].error, found.error


def test_goals_that_are_too_small_for_an_edge_are_added_to_the_next(solved):
    goals, thinned = solved[0], thin(solved[0], TOLERANCE)
    assert np.abs(np.cumsum(thinned - goals, 1)).max() <= LOST * TOLERANCE + 1e-12
    assert np.abs(thinned - goals).max() <= 2 * LOST * TOLERANCE and (thinned == 0).mean() > 0.15
    assert np.abs(thinned - goals)[thinned != 0].max() <= LOST * TOLERANCE < np.abs(thinned[thinned != 0]).min()


def test_carried_sums_are_off_together_by_no_more_than_one_of_them(solved):
    _, plain, carried = solved
    assert np.abs(carried).max() <= TOLERANCE
    together = np.cumsum(carried, 1)  # equal inputs: what a neuron is off by
    assert np.abs(together[:, :60 // LANES]).max() <= (LOST + LEFT) * TOLERANCE + 1e-12
    assert together.std() < TOLERANCE / 2
    assert np.abs(plain.sum(1)).min() > 10 * TOLERANCE  # of goals of one sign, most of them without an edge


def built(**wish):
    torch.manual_seed(0)
    net = MODELS["mlp"]((1, 4, 4), 3, (6, 5))
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.4, 0.4)
    target = read_target(net, (1, 4, 4), 0.0, 1.0)
    plan = make_plan(target, 0.8, Wish(**wish))
    recipe = Recipe(er_p=0.8, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3))
    model = "mlp_constant" if not plan.doubled else f"chain:{target.source(True)}"
    source = MODELS[model]((1, 4, 4), 3, plan.widths)
    layers = find_layers(source)
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = assemble(recipe, found.layers, found.spare, {}).apply(source)
    images = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return plan, found, float((ticket(images) / found.multiple - net(images)).abs().max())


def test_copies_that_no_output_takes_are_not_built():
    plan, found, gap = built(tolerance=0.03)
    copies = plan.widths[2]
    into, out = (found.layers[place] for place in (2, 3))
    assert found.fits[1].parameters < 0.95 * (copies - plan.copies[2]) * 7
    assert out.kept > 0 and into.kept > 0 and gap < 0.15
    assert all(fit.met > 0.99 for fit in found.fits)


def test_twice_the_depth_carries_too():
    plan, found, gap = built(tolerance=0.03, doubled=True)
    assert plan.carried and gap < 0.15 and all(fit.met > 0.9 for fit in found.fits)


def test_where_something_is_promised_nothing_is_carried():
    plan, found, gap = built(epsilon=0.1)
    assert not plan.carried and gap < 0.1 and found.fits[1].parameters == (plan.widths[2] - plan.copies[2]) * 7

"""The odds that plan: against subset sums, and what follows from them for copies."""

import numpy as np
import pytest
from scipy.stats import binom

from popup.theory.odds import ODDS, Goals, copies_for, missed_with, share_near
from popup.theory.subset_sum import MOST_CANDIDATES, best_subsets

DRAWS = {"uniform": lambda draw, shape: draw.uniform(-1, 1, shape),
         "kaiming_normal": lambda draw, shape: draw.normal(0, 3**-0.5, shape)}


@pytest.mark.parametrize(("weights", "products"), ODDS)
@pytest.mark.parametrize("size", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
def test_no_more_sums_miss_than_the_odds_say(weights, products, size, tolerance):
    """And not many less: two candidates fewer than are planned for 1% would not do."""
    odds, draw, count = ODDS[weights, products], np.random.default_rng(1), 4000
    wanted = next(n for n in range(1, 40) if odds.missed(np.array(n), np.array(tolerance), np.array(size * odds.unit)) <= 0.03)
    shape = count, min(wanted, 18)
    values = DRAWS[weights](draw, shape) * (np.abs(DRAWS[weights](draw, shape)) if products else 1)
    missed = (np.abs(best_subsets(values, np.full(count, size * odds.unit)).error) > tolerance).mean()
    assert wanted > 18 or 0.002 < missed <= 0.035


def missed_as_derived(values, goal, tolerance):
    """E[exp(-u)] with the first 24 of values [sets, n], and with all sets that are tried."""
    largest = np.take_along_axis(values, np.argsort(-np.abs(values), 1)[:, :MOST_CANDIDATES], 1)
    tried = [values[:, :MOST_CANDIDATES], *([largest, values[:, -MOST_CANDIDATES:]] if values.shape[1] > MOST_CANDIDATES else [])]
    means, variances = (np.stack([part.sum(1) for part in parts]) for parts in (
        [part / 2 for part in tried], [part**2 / 4 for part in tried]))
    met = 2.0**tried[0].shape[1] * 2 * tolerance * np.exp(-(goal - means)**2 / 2 / variances) / np.sqrt(2 * np.pi * variances)
    return np.exp(-met[0]).mean(), np.exp(-met.sum(0)).mean()


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize(("tolerance", "size"), [(1e-5, 1.0), (1e-6, 0.25), (3e-7, 1.0)])
def test_further_candidates_are_worth_no_less_than_planned(products, tolerance, size):
    """The share that misses is at most the power n / 24 of that of 24, as the docstring derives it; and the odds of 24 are as
    derived, or worse."""
    odds, draw = ODDS["uniform", products], np.random.default_rng(0)
    goal = np.array(size * odds.unit)
    for count in (27, 34, 42):
        values = draw.uniform(-1, 1, (10000, count)) * (draw.uniform(0, 1, (10000, count)) if products else 1)
        one, all_three = missed_as_derived(values, goal, tolerance)
        assert all_three <= 2 * one**(count / MOST_CANDIDATES)
        planned = odds.missed(np.array([MOST_CANDIDATES, count]), tolerance, goal)
        assert planned[0] > 0.9 * one and planned[1] > 0.6 * all_three


@pytest.mark.parametrize(("weights", "products"), ODDS)
@pytest.mark.parametrize("size", [2.5, 4.2, 6.0])
def test_goals_beyond_what_was_fitted_miss_no_more_than_planned(size, weights, products):
    """And not twenty times less where more than 24 are tried: as planned before, no number of candidates would have done."""
    odds, draw = ODDS[weights, products], np.random.default_rng(3)
    goal, tolerance = np.array(size * odds.unit), 0.02
    for count in (24, 30, 36, 48):
        values = DRAWS[weights](draw, (20000, count)) * (np.abs(DRAWS[weights](draw, (20000, count))) if products else 1)
        missed = missed_as_derived(values, float(goal), tolerance)[1]
        planned = float(odds.missed(np.array(count), tolerance, goal))
        assert planned > 0.9 * missed
    assert planned < max(20 * missed, 0.01)


def test_the_derived_share_is_that_of_real_sums():
    draw = np.random.default_rng(2)
    values = draw.uniform(-1, 1, (1500, MOST_CANDIDATES))
    missed = (np.abs(best_subsets(values, np.ones(1500)).error) > 1e-6).mean()
    assert missed == pytest.approx(missed_as_derived(values, 1.0, 1e-6)[0], abs=0.02) and missed > 0.05


def test_copies_mix_the_odds_over_the_edges_that_are_there():
    odds, goals = ODDS["uniform", False], np.array([0.5, 1.0])
    by_hand = sum(binom.pmf(n, 30, 0.6) * odds.missed(np.array(n), 0.01, goals) for n in range(31))
    np.testing.assert_allclose(missed_with(odds, 30, 0.6, 0.01, goals), by_hand, rtol=1e-12)
    assert (missed_with(odds, 30, 0.6, 2.0, goals) == 0).all()  # what is within the tolerance of 0 takes no edge


def test_a_smaller_delta_takes_more_copies_and_the_union_bound_counts_every_parameter():
    odds = ODDS["uniform", True]
    few, many = Goals.of(np.full(10, 0.4)), Goals.of(np.full(1000, 0.4))
    copies = [copies_for(odds, 0.5, 0.01, few, delta, 1) for delta in (0.1, 0.01, 0.001)]
    assert copies[0] < copies[1] < copies[2]
    assert copies_for(odds, 0.5, 0.01, many, 0.1, 1) == copies[2]
    for number, delta in zip(copies, (0.1, 0.01, 0.001), strict=True):
        shares = [10 * missed_with(odds, count, 0.5, 0.01, few.sizes)[0] for count in (number, number - 1)]
        assert shares[0] <= delta < shares[1]
    assert copies_for(odds, 0.5, 1e-9, few, 1e-6, 1) is None


def test_sizes_are_rounded_up():
    draw = np.random.default_rng(0).uniform(-0.7, 0.7, 500)
    goals = Goals.of(draw)
    assert goals.counts.sum() == 500 and goals.sizes.max() >= np.abs(draw).max() - 1e-12
    assert (goals.sizes * goals.counts).sum() >= np.abs(draw).sum()


def test_more_copies_make_more_good_neurons():
    rows, bounds = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 30)), np.ones(30)
    shares = [share_near(ODDS["uniform", True], copies, 0.7, 1e-3, rows, bounds) for copies in (12, 20, 40)]
    assert shares[0] < shares[1] < shares[2] and shares[2] > 0.95


def test_a_parameter_that_is_larger_than_the_others_is_planned_for():
    """As an output's bias of an exact ticket, 105 where weights are whole numbers up to 25: it was refused at any number."""
    goals = Goals.of(np.append(np.full(169, 0.3), 4.2))
    copies = copies_for(ODDS["uniform", False], 0.5, 0.02, goals, 0.0125, 1)
    assert copies is not None and missed_with(ODDS["uniform", False], copies, 0.5, 0.02, goals.sizes) @ goals.counts <= 0.0125

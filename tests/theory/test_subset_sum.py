"""Subset sums: the best there is, against brute force; and few edges where few are enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popup.theory.subset_sum import MOST_CANDIDATES, best_subsets, few_edges
from popup.theory.sums import fit


def brute_force(candidates, targets):
    """The least |sum - target| over all 2**n subsets of each row."""
    choices = (np.arange(1 << candidates.shape[1])[:, None] >> np.arange(candidates.shape[1])) & 1
    return np.abs(candidates @ choices.T - targets[:, None]).min(1)


def cases(count, problems, seed=0, products=False):
    draw = np.random.default_rng(seed)
    candidates = draw.uniform(-1, 1, (problems, count))
    if products:
        candidates *= draw.uniform(0, 1, candidates.shape)
    return candidates, draw.uniform(-1, 1, problems)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 10, 11, 12])
def test_the_best_subset_is_as_near_as_brute_force(count, products):
    candidates, targets = cases(count, 300, count, products)
    found = best_subsets(candidates, targets)
    assert np.array_equal(found.error, (candidates * found.chosen).sum(1) - targets)
    np.testing.assert_allclose(np.abs(found.error), brute_force(candidates, targets), rtol=0, atol=1e-13)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6), min_size=1, max_size=4), st.floats(-1e6, 1e6))
def test_of_any_numbers(rows, target):
    candidates, targets = np.array(rows), np.full(len(rows), target)
    size = np.abs(candidates).sum(1) + np.abs(targets)
    worse = np.abs(best_subsets(candidates, targets).error) - brute_force(candidates, targets)
    assert (worse <= 1e-14 * size).all()


def test_equal_and_zero_candidates_and_targets_that_are_sums():
    candidates = np.array([[0.5] * 6, [0.0] * 6, [1.0, -1, 2, -2, 4, -4]])
    found = best_subsets(candidates, np.array([2.0, 0.3, 7.0]))
    assert found.chosen[0].sum() == 4 and found.chosen[2].tolist() == [True, False] * 3
    np.testing.assert_allclose(found.error, [0, -0.3, 0], atol=1e-15)


def test_as_many_candidates_as_are_searched_over():
    candidates, targets = cases(MOST_CANDIDATES, 40)
    fewer = best_subsets(candidates[:, :16], targets)
    found = best_subsets(candidates, targets)
    assert (np.abs(found.error) <= np.abs(fewer.error) + 1e-13).all() and np.median(np.abs(found.error)) < 1e-6


def test_few_edges_meet_the_tolerance_with_fewer_candidates_and_use_none_for_a_target_near_zero():
    candidates, targets = cases(MOST_CANDIDATES, 200)
    targets[:5] = 0.009
    loose, tight = (few_edges(candidates, np.full(200, MOST_CANDIDATES), targets, tolerance) for tolerance in (0.01, 1e-4))
    for found, tolerance in ((loose, 0.01), (tight, 1e-4)):
        assert (np.abs(found.error) <= tolerance).mean() > 0.99
        np.testing.assert_allclose(found.error, (candidates * found.chosen).sum(1) - targets, atol=1e-15)
    assert loose.chosen.sum() < 0.7 * tight.chosen.sum() and not loose.chosen[:5].any() and tight.chosen[:5].any(1).all()


def test_only_candidates_that_are_there_are_chosen_and_the_best_is_kept_where_none_is_near():
    candidates, targets = cases(MOST_CANDIDATES, 300)
    counts = np.arange(300) % (MOST_CANDIDATES + 1)
    candidates[np.arange(MOST_CANDIDATES) >= counts[:, None]] = 0
    found = few_edges(candidates, counts, targets, 1e-9)
    assert not found.chosen[np.arange(MOST_CANDIDATES) >= counts[:, None]].any()
    few = counts <= 12
    np.testing.assert_allclose(np.abs(found.error[few]), brute_force(candidates[few, :12], targets[few]), atol=1e-13)
    assert (found.error[counts == 0] == -targets[counts == 0]).all()


def test_of_many_candidates_the_most_exact_are_tried_then_the_largest_then_the_rest():
    """72 candidates, of which no search takes more than 24: each goal is a sum of another third of them alone."""
    values = np.tile(np.repeat([0.001, 1.0, 0.5], MOST_CANDIDATES), (4, 1))
    goals = np.array([0.007, 3.0, 0.5, 0.3])
    found = fit(values, goals, 1e-6)
    thirds = found.chosen.reshape(4, 3, MOST_CANDIDATES).sum(2)
    assert thirds[:3].tolist() == [[7, 0, 0], [0, 3, 0], [0, 0, 1]]
    assert np.abs(found.error[:3]).max() < 1e-6 and abs(found.error[3]) == pytest.approx(0.2)  # the nearest of all three

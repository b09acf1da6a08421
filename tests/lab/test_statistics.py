"""Means, paired differences and Holm's adjustment, against values worked out by hand or by scipy's own tests."""

import numpy as np
import pytest
from scipy import stats

from popup.lab.report.statistics import holm, intervals_needed, mean, paired


def test_the_mean_of_three_has_the_textbook_interval():
    found = mean([97.0, 98.0, 99.0])
    assert found.value == 98.0
    assert found.half == pytest.approx(4.302652729911275 / 3**0.5)  # t(0.975, 2) * s / sqrt(n), s = 1
    assert found.text() == "98.0 ±2.5"


def test_one_seed_has_no_interval():
    found = mean([97.0])
    assert found.half is None and found.text(2) == "97.00"


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.Generator(np.random.Philox(1))
    draws = [mean(list(row)) for row in generator.normal(5, 2, (4000, 4))]
    covered = sum(abs(found.value - 5) <= found.half for found in draws) / 4000
    assert 0.94 < covered < 0.96


def test_paired_takes_shared_seeds_alone_and_agrees_with_scipy():
    first, second = {0: 98.0, 1: 97.0, 2: 99.5, 7: 10.0}, {0: 97.0, 1: 96.8, 2: 98.0, 9: 90.0}
    found = paired(first, second)
    assert found.count == 3 and found.value == pytest.approx(0.9)
    assert found.p_value == pytest.approx(stats.ttest_rel([98.0, 97.0, 99.5], [97.0, 96.8, 98.0]).pvalue)


def test_paired_without_shared_seeds_or_with_one():
    assert paired({0: 1.0}, {1: 1.0}) is None
    alone = paired({0: 2.0}, {0: 1.0})
    assert (alone.value, alone.half, alone.p_value) == (1.0, None, None)


def test_equal_differences_need_no_test():
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p_value == 1.0
    equal = paired({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert (equal.value, equal.half, equal.p_value) == (1.0, None, None)  # equal differences of few seeds prove nothing


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(("seeds", "comparisons"), [(2, 80), (3, 7), (5, 1)])
def test_a_difference_of_so_many_intervals_just_is_below_the_level(seeds, comparisons):
    differences = np.linspace(-1, 1, seeds)
    half = mean(list(differences)).half
    for factor, below in ((1.001, True), (0.999, False)):
        shift = factor * half * intervals_needed(seeds, comparisons, 0.05)
        found = paired(dict(enumerate(differences + shift)), dict.fromkeys(range(seeds), 0.0))
        assert (holm([found.p_value, *[1.0] * (comparisons - 1)])[0] < 0.05) is below

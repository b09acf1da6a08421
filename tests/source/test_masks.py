"""ER masks: how many edges, where, ascending, nested in p, chunked; and `share`, the exact rounding of p m and k n."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from popup.source import masks
from popup.source.masks import MASKS, bernoulli, exact, share

RARE = 1e-4


def by_decimal(fraction, count):
    """floor(fraction count + 1/2) in decimal arithmetic, of the number that the user wrote."""
    return int(Decimal(repr(fraction)) * count + Decimal("0.5"))


@given(st.floats(1e-6, 1.0), st.integers(0, 10**7))
def test_share_is_decimal_rounding_of_any_float(fraction, count):
    assert share(fraction, count) == by_decimal(fraction, count)


@given(st.integers(1, 1000), st.integers(0, 10**5))
def test_share_is_decimal_rounding_of_what_people_write(thousandths, count):
    fraction = thousandths / 1000
    assert share(fraction, count) == (2 * thousandths * count + 1000) // 2000 == by_decimal(fraction, count)


@pytest.mark.parametrize(("fraction", "count", "expected"), [
    (0.29, 50, 15),  # 14.5; the float product is 14.499999999999998
    (0.145, 100, 15), (0.5, 1, 1), (0.5, 3, 2), (1e-6, 499999, 0), (1e-6, 500000, 1), (1.0, 7, 7), (0.1, 0, 0)])
def test_share_at_the_halves(fraction, count, expected):
    assert share(fraction, count) == expected


@pytest.mark.parametrize("kind", MASKS)
@given(seed=st.integers(0, 2**40), entries=st.integers(1, 3000), p=st.floats(1e-6, 1.0))
def test_edges_are_ascending_places_in_the_layer(kind, seed, entries, p):
    edges = MASKS[kind](seed, "a.weight", entries, p)
    assert edges.dtype == np.int64 and edges.ndim == 1
    assert (np.diff(edges) > 0).all() and (len(edges) == 0 or (edges[0] >= 0 and edges[-1] < entries))


@given(entries=st.integers(1, 3000), p=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_exact_draws_exactly_the_rounded_share(entries, p, seed):
    assert len(exact(seed, "a.weight", entries, p)) == by_decimal(p, entries)


@pytest.mark.parametrize("kind", MASKS)
@given(seed=st.integers(0, 10**6), pair=st.tuples(st.floats(0.001, 1.0), st.floats(0.001, 1.0)))
def test_the_edges_at_a_smaller_p_are_among_those_at_a_larger(kind, seed, pair):
    small, large = (set(MASKS[kind](seed, "a.weight", 777, p).tolist()) for p in sorted(pair))
    assert small <= large


@pytest.mark.parametrize("kind", MASKS)
def test_p_1_takes_every_entry(kind):
    assert np.array_equal(MASKS[kind](0, "a.weight", 1001, 1.0), np.arange(1001))


def test_bernoulli_compares_each_32_bit_word_with_p(monkeypatch):
    words = np.array([0, 2**31 - 1, 2**31, 2**32 - 1], dtype="<u4")
    monkeypatch.setattr(masks.Stream, "words32", lambda self, count: words[:count])
    assert bernoulli(0, "a", 4, 0.5).tolist() == [0, 1]
    assert bernoulli(0, "a", 4, 1.0).tolist() == [0, 1, 2, 3]
    assert bernoulli(0, "a", 4, 1e-12).tolist() == []


def test_exact_gives_ties_of_words_to_the_lower_entry(monkeypatch):
    monkeypatch.setattr(masks.Stream, "words32", lambda self, count: np.array([9, 4, 4, 4, 1], dtype="<u4"))
    assert exact(0, "a", 5, 0.6).tolist() == [1, 2, 4]


def test_chunks_do_not_show(monkeypatch):
    whole = bernoulli(0, "a", 1001, 0.3)
    monkeypatch.setattr(masks, "CHUNK", 64)
    assert np.array_equal(bernoulli(0, "a", 1001, 0.3), whole)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_bernoulli_counts_vary_as_the_binomial_does(p):
    entries, seeds = 2000, 400
    counts = np.array([len(bernoulli(seed, "a.weight", entries, p)) for seed in range(seeds)])
    z = (counts - p * entries) / np.sqrt(entries * p * (1 - p))
    assert stats.norm.sf(abs(z.mean() * np.sqrt(seeds))) > RARE
    assert RARE < stats.chi2.sf(float(np.sum(z**2)), seeds) < 1 - RARE


@pytest.mark.parametrize("kind", MASKS)
def test_every_entry_is_as_likely(kind):
    entries, seeds = 50, 2000
    hits = np.zeros(entries)
    for seed in range(seeds):
        hits[MASKS[kind](seed, "a.weight", entries, 0.3)] += 1
    chi_square = float(np.sum((hits - 0.3 * seeds) ** 2)) / (0.3 * 0.7 * seeds)
    assert RARE < stats.chi2.sf(chi_square, entries) < 1 - RARE


def test_layers_of_other_names_have_independent_edges():
    entries = 40000
    first, second = (set(bernoulli(0, name, entries, 0.2).tolist()) for name in ("a.weight", "b.weight"))
    assert stats.binomtest(len(first & second), entries, 0.04).pvalue > RARE

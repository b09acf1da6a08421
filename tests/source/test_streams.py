"""Streams: raw words against a Philox in pure Python, continuing calls, independence of names, fairness of the draws."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from popup.source.streams import Stream

MASK64 = 2**64 - 1
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
RARE = 1e-4  # a fixed seed passes or fails for ever, so a p value below this is a defect and not bad luck


def philox4x64(key, counter):
    """Ten rounds of Philox4x64 on one 256-bit counter, after Salmon et al., SC 2011, figure 2."""
    x = [counter >> 64 * place & MASK64 for place in range(4)]
    k = [key & MASK64, key >> 64]
    for _ in range(10):
        left, right = MULTIPLIERS[0] * x[0], MULTIPLIERS[1] * x[2]
        x = [right >> 64 ^ x[1] ^ k[0], right & MASK64, left >> 64 ^ x[3] ^ k[1], left & MASK64]
        k = [(k[0] + WEYL[0]) & MASK64, (k[1] + WEYL[1]) & MASK64]
    return x


@pytest.mark.parametrize(("seed", "purpose", "name"), [(0, "edges", "fc.weight"), (7, "weights", ""), (2**70, "ö", "a/b")])
def test_the_words_are_those_of_a_pure_python_philox(seed, purpose, name):
    key = int.from_bytes(hashlib.sha256(f"popup/{seed}/{purpose}/{name}".encode()).digest()[:16], "little")
    expected = [word for counter in range(1, 6) for word in philox4x64(key, counter)]
    assert Stream(seed, purpose, name).words64(20).tolist() == expected


def test_words32_and_bits_are_the_same_words_cut_low_end_first():
    words = Stream(3, "edges", "a").words64(4).tolist()
    halves = [word >> 32 * half & 2**32 - 1 for word in words for half in (0, 1)]
    bits = [bool(word >> place & 1) for word in words for place in range(64)]
    assert Stream(3, "edges", "a").words32(7).tolist() == halves[:7]
    assert Stream(3, "edges", "a").bits(200).tolist() == bits[:200]


@given(st.lists(st.integers(0, 40), max_size=6))
def test_each_call_goes_on_where_the_last_one_ended(counts):
    whole, parts = Stream(1, "edges", "a"), Stream(1, "edges", "a")
    assert whole.words64(sum(counts)).tolist() == [word for count in counts for word in parts.words64(count).tolist()]


def test_even_chunks_of_words32_and_whole_words_of_bits_join_up():
    whole, parts = Stream(1, "edges", "a"), Stream(1, "edges", "a")
    assert np.array_equal(whole.words32(30), np.concatenate([parts.words32(10), parts.words32(20)]))
    whole, parts = Stream(1, "edges", "a"), Stream(1, "edges", "a")
    assert np.array_equal(whole.bits(192), np.concatenate([parts.bits(64), parts.bits(128)]))


@pytest.mark.parametrize("draw", ["words64", "words32", "bits", "uniform", "permutation"])
def test_nothing_can_be_drawn(draw):
    assert len(getattr(Stream(0, "edges"), draw)(0)) == 0


@pytest.mark.parametrize("other", [(1, "edges", "a"), (0, "weights", "a"), (0, "edges", "b"), (0, "edges", "a.b")])
def test_another_seed_purpose_or_name_is_an_independent_stream(other):
    count = 20000
    first, second = Stream(0, "edges", "a").bits(count), Stream(*other).bits(count)
    agreeing = int(np.count_nonzero(first == second))
    assert stats.binomtest(agreeing, count).pvalue > RARE
    assert not set(Stream(0, "edges", "a").words64(1000).tolist()) & set(Stream(*other).words64(1000).tolist())


def test_every_bit_place_of_a_word_is_fair():
    rounds = 4000
    ones = Stream(0, "weights", "fair").bits(64 * rounds).reshape(rounds, 64).sum(0)
    chi_square = float(np.sum((ones - rounds / 2) ** 2 / (rounds / 4)))
    assert RARE < stats.chi2.sf(chi_square, 64) < 1 - RARE


def test_uniform_is_uniform():
    counts = np.histogram(Stream(0, "test", "uniform").uniform(50000), 50, (0, 1))[0]
    assert RARE < stats.chisquare(counts).pvalue < 1 - RARE


@pytest.mark.parametrize(("word", "value"), [(0, 2.0**-53), (2**64 - 1, 1 - 2.0**-53)])
def test_uniform_is_open_at_both_ends(monkeypatch, word, value):
    stream = Stream(0, "test")
    monkeypatch.setattr(stream, "words64", lambda count: np.full(count, word, dtype="<u8"))
    assert stream.uniform(1).tolist() == [value]
    assert 0 < stream.uniform(1)[0] < 1


@pytest.mark.parametrize("high", [1, 2, 7, 10, 2**31 - 1])
def test_integers_stay_below_high_and_are_uniform(high):
    values = Stream(0, "test", "integers").integers(high, 20000)
    assert values.min() >= 0 and values.max() < high
    counts = np.histogram(values, min(high, 10), (0, high))[0]
    expected = np.diff(np.histogram_bin_edges([], min(high, 10), (0, high))) / high * 20000
    assert high == 1 or RARE < stats.chisquare(counts, expected).pvalue < 1 - RARE


@pytest.mark.parametrize(("word", "high", "value"), [(0, 7, 0), (2**64 - 1, 7, 6), (2**64 - 1, 2**31 - 1, 2**31 - 2)])
def test_integers_at_the_extreme_words(monkeypatch, word, high, value):
    stream = Stream(0, "test")
    monkeypatch.setattr(stream, "words64", lambda count: np.full(count, word, dtype="<u8"))
    assert stream.integers(high, 1).tolist() == [value]


def test_a_permutation_holds_every_place_once_and_each_first_place_is_as_likely():
    assert sorted(Stream(0, "order", "0").permutation(1000).tolist()) == list(range(1000))
    first = [int(Stream(seed, "order").permutation(6)[0]) for seed in range(3000)]
    assert stats.chisquare(np.bincount(first, minlength=6)).pvalue > RARE

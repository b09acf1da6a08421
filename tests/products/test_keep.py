"""Which edges numba's `keep` writes, and where: the same by vectors and one by one, and nothing of another thread's."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

compiled = pytest.importorskip("popup.products.compiled", exc_type=ImportError)
choice = pytest.importorskip("popup.products.choice", exc_type=ImportError)

UNTOUCHED = 77


def drawn(counts, dtype, seed):
    """Values of which half are 0, one no number and one -0, their inputs, and where segments with so many edges begin."""
    draw, begins = np.random.default_rng(seed), np.append(0, np.cumsum(counts)).astype(np.int64)
    values = (draw.standard_normal(begins[-1]) * (draw.random(begins[-1]) < 0.5)).astype(dtype)
    values[:1], values[-1:] = np.nan, -0.0
    return values, draw.integers(0, 1 << 16, begins[-1]).astype(np.uint16), begins


def kept(values, selected, inputs, begins, blocks, pieces):
    """What `keep` writes into room that is full of a mark, the outputs in these pieces, in this order."""
    room = np.full(len(values), UNTOUCHED, values.dtype), np.full(len(values), UNTOUCHED, np.uint16)
    ends = np.full((2, len(begins) - 1), UNTOUCHED, np.int64)
    for first, last in pieces:
        compiled.keep(values, selected, inputs, begins, *room, *ends, blocks, first, last)
    return *room, *ends


@given(counts=st.lists(st.sampled_from([0, 1, 15, 16, 24, 31, 32, 33, 70]), min_size=1, max_size=12), blocks=st.integers(1, 2),
       dtype=st.sampled_from([np.float32, np.float64]), by=st.sampled_from([None, bool, np.uint8]), seed=st.integers(0, 99))
def test_kept_are_those_that_count_in_their_order(counts, blocks, dtype, by, seed):
    counts = counts * blocks
    values, inputs, begins = drawn(counts, dtype, seed)
    chosen = values != 0 if by is None else np.random.default_rng(seed).random(len(values)) < 0.5
    selected = None if by is None else chosen.astype(np.uint8) * 128 if by is np.uint8 else chosen.view(np.uint8)
    outs = len(counts) // blocks
    of_values, of_inputs, starts, ends = kept(values, selected, inputs, begins, blocks, [(0, outs)])
    for segment, (start, end) in enumerate(zip(starts, ends, strict=True)):
        edges = begins[segment] + np.flatnonzero(chosen[begins[segment]:begins[segment + 1]])
        assert of_values[start:end].tobytes() == values[edges].tobytes() and (of_inputs[start:end] == inputs[edges]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("first, last", [(0, 3), (3, 7), (7, 9)])
def test_a_piece_writes_within_its_own_place(dtype, first, last):
    """All edges count, so that as much as can be is written; what lies before and after is another thread's."""
    counts = [40, 7, 33, 16, 64, 24, 1, 31, 90]
    values, inputs, begins = drawn(counts, dtype, 0)
    values[:] = 1 + np.arange(len(values))
    for selected in (None, np.ones(len(values), np.uint8), np.arange(len(values)).astype(np.uint8) % 2):
        found = kept(values, selected, inputs, begins, 1, [(first, last)])
        for room in found[:2]:
            assert (room[:begins[first]] == UNTOUCHED).all() and (room[begins[last]:] == UNTOUCHED).all()
        assert (found[3][:first] == UNTOUCHED).all() and (found[3][last:] == UNTOUCHED).all()
        if selected is None:
            assert (found[0][begins[first]:begins[last]] == values[begins[first]:begins[last]]).all()


DIGEST = """
import hashlib, numpy as np, sys
from popup.products import choice, compiled
draw, digest = np.random.default_rng(0), hashlib.sha256()
for dtype in (np.float32, np.float64):
    begins = np.append(0, np.cumsum(draw.integers(0, 60, 200)))
    values = (draw.standard_normal(begins[-1]) * (draw.random(begins[-1]) < 0.5)).astype(dtype)
    inputs = draw.integers(0, 1 << 16, begins[-1]).astype(np.uint16)
    for selected in (None, (draw.random(begins[-1]) < 0.5).astype(np.uint8)):
        room = np.empty_like(values), np.empty_like(inputs), *np.empty((2, 200), np.int64)
        compiled.keep(values, selected, inputs, begins, *room, 4, 0, 50)
        for start, end in zip(*room[2:]):
            digest.update(room[0][start:end].tobytes() + room[1][start:end].tobytes())
        digest.update(room[2].tobytes() + room[3].tobytes())
print(choice.bits_at_once(), digest.hexdigest())
"""


@cache
def printed(**changes):
    """What a process of its own finds, in an environment with these changes."""
    return subprocess.check_output([sys.executable, "-c", DIGEST], env=os.environ | changes, text=True).split()


@pytest.mark.parametrize("name, features, bits", [
    ("generic", "", choice.NONE), ("haswell", "+avx2,+ssse3,+fma,+popcnt", choice.NARROW)])
def test_each_processor_keeps_the_same(name, features, bits):
    """Numba's own way to compile for another processor: for one without such vectors, and for one with AVX2 alone."""
    if bits > choice.bits_at_once():
        pytest.skip("this processor has not got these vectors")
    other, ours = printed(NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features), printed()  # ours: once for all
    assert other == [str(bits), ours[1]] and ours[0] == str(choice.bits_at_once())

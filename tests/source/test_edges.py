"""Edges as gaps: encode and decode, the smallest integer type, and scattering to the dense tensor and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popup.source import edges


def restricted(dense, places, count):
    found = torch.full((count,), torch.nan)
    edges.restrict(dense, places, found)
    return found


@given(st.sets(st.integers(0, 999)), st.integers(1000, 1400))
def test_decode_undoes_encode_and_restrict_undoes_expand(places, entries):
    flat = np.array(sorted(places), dtype=np.int64)
    gaps = edges.encode(flat, entries)
    assert edges.decode(gaps, entries).tolist() == flat.tolist()
    values = torch.arange(1.0, len(flat) + 1)
    dense = edges.expand(values, edges.decode(gaps, entries), entries)
    expected = torch.zeros(entries)
    expected[torch.from_numpy(flat)] = values
    assert torch.equal(dense, expected)
    assert torch.equal(restricted(dense, edges.decode(gaps, entries), len(flat)), values)
    assert torch.equal(restricted(dense, edges.decode(gaps, entries).long(), len(flat)), values)
    assert torch.equal(restricted(dense.double(), edges.decode(gaps, entries), len(flat)), values)


@pytest.mark.parametrize(("last", "dtype"), [
    (255, torch.uint8), (256, torch.int16), (32767, torch.int16), (32768, torch.int32), (2**31 - 1, torch.int32),
    (2**31, torch.int64)])
def test_gaps_take_the_smallest_type_that_holds_them(last, dtype):
    gaps = edges.encode(np.array([last, last + 1]), 2**40)
    assert gaps.dtype is dtype
    assert edges.decode(gaps, 2**40).tolist() == [last, last + 1]


@pytest.mark.parametrize(("entries", "dtype"), [(2**31 - 1, torch.int32), (2**31, torch.int64)])
def test_indices_are_short_where_the_layer_allows_it(entries, dtype):
    assert edges.decode(edges.encode(np.array([3, 7]), entries), entries).dtype is dtype


def test_a_layer_of_edges_alone_needs_no_index():
    gaps, values = edges.encode(np.arange(12), 12), torch.arange(12.0)
    assert gaps.numel() == 0
    assert torch.equal(edges.expand(values, None, 12), values)
    assert torch.equal(restricted(values.view(3, 4), None, 12), values)


def test_restrict_reads_a_tensor_in_its_own_order_whatever_its_strides():
    dense = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    places = edges.decode(edges.encode(np.array([1, 5, 23]), 24), 24)
    assert restricted(dense, places, 3).tolist() == restricted(dense, places.long(), 3).tolist() == [1, 5, 23]

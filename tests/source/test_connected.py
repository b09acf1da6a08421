"""S_ER with a minimum of connections: no unit is without an edge, on average there are p m_l, the seed is the whole source."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from math import prod, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import models
from models import MODELS
from popup import TicketError, UsageError, attach, densities, extract, load, verify
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.source import masks
from popup.source.connected import CONNECTED, WORDS, _fewest, bernoulli, exact, expected_edges
from popup.source.layer_source import draw_edges
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.streams import Stream

SHAPES = {"linear": (30, 40), "wide": (12, 200), "convolution": (24, 12, 3, 3), "depthwise": (20, 1, 3, 3), "line": (9, 8, 5)}
SPARSE = {"linear": 0.06, "wide": 0.09, "convolution": 0.02, "depthwise": 0.15, "line": 0.06}


def units(edges, shape):
    """How many edges each output and each input has."""
    mask = np.zeros(prod(shape), dtype=int)
    mask[edges] = 1
    mask = mask.reshape(shape[0], shape[1], -1)
    return mask.sum((1, 2)), mask.sum((0, 2))


@pytest.mark.parametrize("mask", CONNECTED)
@pytest.mark.parametrize("name", SHAPES)
def test_no_unit_is_without_an_edge_where_some_would_be(mask, name):
    shape, p = SHAPES[name], SPARSE[name]
    cut = 0
    for seed in range(20):
        plain, edges = masks.MASKS[mask](seed, name, prod(shape), p), CONNECTED[mask](seed, name, shape, p)
        cut += any(0 in counts for counts in units(plain, shape))
        assert all(counts.min() > 0 for counts in units(edges, shape))
        assert edges.dtype == np.int64 and (np.diff(edges) > 0).all()
    assert cut > 10, "without it there are such"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("factor", [1, 1.3, 3])
def test_the_expected_number_of_edges_is_p_m(name, factor):
    """The mean over seeds is within three of its own standard errors, and what is expected is p m to a millionth of an edge."""
    shape, p = SHAPES[name], min(1.0, factor * SPARSE[name])
    counts = [len(bernoulli(seed, name, shape, p)) for seed in range(400)]
    assert abs(np.mean(counts) - p * prod(shape)) < 3 * np.std(counts, ddof=1) / sqrt(len(counts)) + 1e-9
    assert np.std(counts) > 1
    assert {len(exact(seed, name, shape, p)) for seed in range(5)} == {int(p * prod(shape) + 0.5)}


def test_adding_edges_without_lowering_the_bound_would_be_seen():
    shape, p = SHAPES["linear"], SPARSE["linear"]
    added = expected_edges(shape, int(p * WORDS)) - p * prod(shape)
    deviation = np.std([len(bernoulli(seed, "linear", shape, p)) for seed in range(400)]) / sqrt(400)
    assert added > 6 * deviation


def test_each_entry_is_as_likely_an_edge():
    shape, p, seeds = (6, 9), 0.25, 1500
    found = np.bincount(np.concatenate([bernoulli(seed, "l", shape, p) for seed in range(seeds)]), minlength=54) / seeds
    assert abs(found - p).max() < 5 * sqrt(p * (1 - p) / seeds)


@pytest.mark.parametrize("mask", CONNECTED)
def test_one_seeds_edges_at_a_smaller_density_are_among_those_at_a_larger_one(mask):
    for name, shape in SHAPES.items():
        drawn = [set(CONNECTED[mask](3, name, shape, p).tolist()) for p in (SPARSE[name], 2 * SPARSE[name], 0.5, 1.0)]
        assert all(less <= more for less, more in pairwise(drawn)) and len(drawn[-1]) == prod(shape)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.floats(0.01, 1.0), st.integers(0, 99),
       st.sampled_from(sorted(CONNECTED)))
def test_whatever_the_shape_units_are_connected_or_it_is_refused(outputs, inputs, kernel, p, seed, mask):
    shape = (outputs, inputs, kernel)
    try:
        edges = CONNECTED[mask](seed, "l", shape, p)
    except UsageError as error:
        needed = outputs + inputs if mask == "bernoulli" else max(outputs, inputs)
        assert p * prod(shape) < needed and "raise er_p" in str(error)
        return
    assert all(counts.min() > 0 for counts in units(edges, shape))


@pytest.mark.parametrize("name", SHAPES)
def test_as_many_exact_edges_as_the_larger_side_has_units_connect_all_whatever_the_seed(name):
    shape = SHAPES[name]
    for wanted in range(max(shape[:2]), sum(shape[:2]) + 2):
        for seed in range(10):
            edges = exact(seed, name, shape, wanted / prod(shape))
            assert len(edges) == wanted and all(counts.min() > 0 for counts in units(edges, shape))
    with pytest.raises(UsageError, match=f"takes {max(shape[:2])}: raise er_p"):
        exact(0, name, shape, (max(shape[:2]) - 1) / prod(shape))


@pytest.mark.parametrize("shape", [(10, 32), (6, 4, 3, 3), (5, 5), (1, 7), (7, 1, 3, 3)])
def test_the_fewest_that_connect_are_the_smallest_words_of_units_that_have_none(shape):
    """One after the other, in Python."""
    row, inside = prod(shape[1:]), prod(shape[2:])
    for seed in range(10):
        words, used, found = Stream(seed, "edges", "l").words32(prod(shape)), set(), set()
        ascending = np.argsort(words, kind="stable").tolist()
        unit = {entry: {("output", entry // row), ("input", entry // inside % shape[1])} for entry in ascending}
        for entry in ascending:
            if not unit[entry] & used:
                found.add(entry)
                used |= unit[entry]
        for alone in set.union(*unit.values()) - used:
            found.add(next(entry for entry in ascending if alone in unit[entry]))
        assert len(found) == max(shape[:2]) and np.flatnonzero(_fewest(words, shape)).tolist() == sorted(found)


def test_where_all_are_connected_anyhow_it_is_the_plain_mask():
    shape = (64, 64)
    assert np.array_equal(bernoulli(1, "a", shape, 0.9), masks.bernoulli(1, "a", prod(shape), 0.9))


@pytest.mark.parametrize("mask", CONNECTED)
def test_all_edges_are_all_though_a_density_that_was_spread_misses_one_by_its_last_digit(mask):
    layers = [Layer("0.weight", (1, 784)), Layer("1.weight", (1, 1)), Layer("2.weight", (10, 1))]
    recipe = Recipe(er_p=1.0, density="erk", mask=mask, connected=True)
    for p_l in (recipe.densities(layers)[0], 1.0, 0.9999999999999999):
        assert len(draw_edges(recipe, layers[0], p_l)) == 784


def test_golden():
    """Whoever changes this breaks tickets that were saved."""
    digests = [hashlib.sha256(CONNECTED[mask](7, "features.0.weight", (24, 12, 3, 3), 0.02).tobytes()).hexdigest()[:16]
               for mask in ("bernoulli", "exact")]
    assert digests == ["f5a6bd01b413d5ba", "b5d92d15b958a9fb"]


def test_too_few_edges_for_all_units_are_refused_by_name():
    with pytest.raises(UsageError, match=r"p_l of 1.weight is 0.01, which is 12 of its 1200 weights, and to connect each of its "
                                         "30 outputs and 40 inputs takes 53: raise er_p"):
        attach(nn.Sequential(nn.Flatten(), nn.Linear(40, 30)), er_p=0.01, connected=True)
    for mask, more in (("snip", {}), ("given", {"er_p": 0.2})):
        with pytest.raises(UsageError, match=f"connected is for edges that the seed draws, and mask is '{mask}'"):
            Recipe(mask=mask, connected=True, **more)


@pytest.mark.parametrize("mask", CONNECTED)
@pytest.mark.parametrize("bias", ["zero", "search"])
def test_a_ticket_carries_it_and_verify_draws_it_again(mask, bias, tmp_path):
    net = models.small_conv((1, 8, 8), 10, (8, 12))
    attach(net, er_p=0.1, k=0.5, mask=mask, bias=bias, connected=True, density="erk")
    path = extract(net).save(tmp_path / "ticket.safetensors")
    ticket = load(path)
    assert ticket.recipe.connected and verify(ticket).holds
    for layer in ticket.layers:
        if layer.spec.weight is None:
            edges = draw_edges(ticket.recipe, layer.spec, layer.p_l)
            assert all(counts.min() > 0 for counts in units(edges, layer.spec.shape))
    assert [row.edges for row in densities(net)] == [len(layer.codes) for layer in ticket.layers]
    other = replace(ticket, recipe=replace(ticket.recipe, connected=False))
    with pytest.raises(TicketError, match="other edges than the ticket records"):
        other.state_dict()


def test_another_layer_does_not_shift_it():
    layer, recipe = Layer("0.weight", (30, 40)), Recipe(connected=True)
    nets = [nn.Sequential(nn.Linear(40, 30), *more) for more in ([], [nn.ReLU(), nn.Linear(30, 60)])]
    found = [extract(attach(net, er_p=0.06, connected=True)).layers[0].edges_hash for net in nets]
    assert found[0] == found[1] and len(draw_edges(recipe, layer, 0.06)) == len(bernoulli(0, "0.weight", (30, 40), 0.06))


def test_a_run_of_before_keeps_its_name_and_the_command_line_knows_it(tmp_path, capsys):
    assert Config().hash() == "d39ff252add1" != Config().replace(connected=True).hash()
    quick = ["--epochs", "1", "--widths", "8", "--out", str(tmp_path), "--connected"]
    assert main([*quick, "--er-p", "0.3"], MODELS) == 0
    (path,) = tmp_path.glob("*/ticket.safetensors")
    assert main(["verify", str(path)], MODELS) == 0 and load(path).recipe.connected
    capsys.readouterr()
    assert main([*quick, "--er-p", "0.01"], MODELS) == 2
    assert "to connect each of its" in capsys.readouterr().err

"""Coats against a plain reading of the paper on small cases: which edges each coat keeps, what they add up to, the gradient, the
scale, the settings' limits, and a file."""

from fractions import Fraction
from itertools import pairwise
from math import floor, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from popup import SearchSettings, UsageError, advance, attach, extract, load, scores, verify
from popup.search.methods.coats import COAT_RULES, coat_book, coat_counts
from popup.search.network import search_of

SHARES = {"even": lambda i, n: Fraction(n - i, n), "halves": lambda i, n: Fraction(1, 2**i),
          "thirds": lambda i, n: Fraction(1, 3**i)}


def one_layer(k=0.5, er_p=1.0, inputs=16, outputs=9, **settings):
    net = attach(nn.Sequential(nn.Linear(inputs, outputs, bias=False)), er_p=er_p, k=k, weights="kaiming_normal",
                 search=SearchSettings("coats", **settings))
    return net, search_of(net).layers[0], scores(net)[0]


def pass_through(net, layer):
    """W_eff of a training pass, flat at the edges, and dL/dW_eff for the loss sum(W_eff * C) with a random C."""
    cotangent = torch.randn(layer.spec.shape, generator=torch.Generator().manual_seed(1))
    output = net.train()(torch.eye(layer.spec.shape[1]))
    (output.T * cotangent).sum().backward()
    places = layer.flat_edges()
    return output.detach().T.flatten()[places].numpy(), cotangent.flatten()[places].numpy()


def reading(found, counts):
    """How many coats each edge has: the sum of one mask a coat, each of the first so many of a sort by size."""
    order = sorted(range(len(found)), key=lambda place: (-abs(found[place]), place))
    return np.array([sum(order.index(place) < count for count in counts) for place in range(len(found))])


@pytest.mark.parametrize("rule", SHARES)
@pytest.mark.parametrize(("coats", "er_p"), [(2, 1.0), (3, 0.6), (5, 1.0)])
def test_nested_selections_of_one_score_are_added_up_and_each_passes_the_gradient(coats, er_p, rule):
    net, layer, score = one_layer(er_p=er_p, coats=coats, coat_rule=rule)
    weight, gradient = pass_through(net, layer)
    found, own = score.detach().numpy(), layer.values.numpy()
    counts = [floor(SHARES[rule](below, coats) * layer.kept + Fraction(1, 2)) for below in range(coats)]
    assert counts == sorted(set(counts), reverse=True) and counts[-1] > 0, "the case is one without corners"
    times = reading(found, counts)
    factor = 1 / sqrt(sum((2 * below + 1) * SHARES[rule](below, coats) for below in range(coats)))
    assert weight == pytest.approx(own * times * factor, rel=1e-6)
    assert score.grad.numpy() == pytest.approx(coats * factor * gradient * own * np.sign(found), rel=1e-5)
    codes = extract(net).layers[0].codes
    assert np.array_equal(codes, times) and codes.dtype == np.uint8
    assert [int((codes > below).sum()) for below in range(coats)] == counts, "law 3 for each coat"


@pytest.mark.parametrize("rule", COAT_RULES)
@pytest.mark.parametrize("coats", [1, 2, 7, 16])
def test_counts_fall_from_coat_to_coat_as_far_as_there_are_edges(coats, rule):
    for kept in (*range(40), 1000):
        counts = coat_counts(coats, rule, kept)
        assert counts[0] == kept and len(counts) == coats and all(
            later < before or later == before == 0 for before, later in pairwise(counts))
        assert counts[1:] == [0] * (coats - 1) if kept < 2 else coats == 1 or counts[1] > 0


@pytest.mark.parametrize("rule", COAT_RULES)
@pytest.mark.parametrize("coats", [2, 3, 6])
@pytest.mark.parametrize("anneal", ["none", "linear"])
def test_weights_have_the_mean_square_of_a_plain_ticket(coats, rule, anneal):
    options = {"er_p": 1.0, "k": 0.3, "seed": 3}
    nets = [attach(nn.Sequential(nn.Linear(300, 200, bias=False)), search=SearchSettings(
        method, coats=coats, coat_rule=rule, anneal=anneal), **options) for method in ("coats", "edge_popup")]
    several, plain = (net.train()(torch.eye(300)).detach().square().sum() for net in nets)
    assert float(several / plain) == pytest.approx(1, abs=2e-3)


def test_one_coat_is_edge_popup_to_the_last_bit():
    one, layer, _ = one_layer(coats=1)
    plain = attach(nn.Sequential(nn.Linear(16, 9, bias=False)), er_p=1.0, k=0.5, weights="kaiming_normal")
    assert np.array_equal(pass_through(one, layer)[0], pass_through(plain, search_of(plain).layers[0])[0])
    assert torch.equal(scores(one)[0].grad, scores(plain)[0].grad)
    assert np.array_equal(extract(one).layers[0].codes, extract(plain).layers[0].codes)


def test_ties_go_to_the_lower_index_in_each_coat():
    net, layer, score = one_layer(coats=3, coat_rule="even")
    score.data.fill_(0.25)
    assert layer.kept == 72 and extract(net).layers[0].codes.tolist() == [3] * 24 + [2] * 24 + [1] * 24 + [0] * 72


def test_by_value_the_largest_scores_have_the_coats():
    net, _, score = one_layer(coats=3, rank="value", k=0.25)
    order = np.argsort(-score.detach().numpy(), kind="stable")
    codes = extract(net).layers[0].codes
    assert set(np.flatnonzero(codes == 3)) == set(order[:4]) and set(np.flatnonzero(codes)) == set(order[:36])


def test_an_annealed_search_has_coats_of_what_it_keeps_now():
    net, layer, score = one_layer(k=0.25, anneal="linear", anneal_until=0.5, coats=2, coat_rule="halves")
    advance(net, 0.25)  # k is 0.625
    weight, _ = pass_through(net, layer)
    times = reading(score.detach().numpy(), [90, 45])
    assert weight == pytest.approx(layer.values.numpy() * times * np.float32(sqrt(0.4) / sqrt(2.5)), rel=1e-5)
    assert np.bincount(extract(net).layers[0].codes).tolist() == [108, 18, 18]


def test_under_a_global_scope_outer_coats_are_shares_of_what_a_layer_has():
    net = attach(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10)), er_p=1.0, k=0.5,
                 search=SearchSettings("coats", scope="global", coats=2, coat_rule="halves"))
    scores(net)[1].data *= 1e-3
    counts = [np.bincount(layer.codes, minlength=3).tolist() for layer in extract(net).layers]
    assert counts == [[1, 49, 50], [99, 1, 0]]


@pytest.mark.parametrize("form", [{}, {"compress": True}, {"embed_weights": True}])
def test_a_ticket_of_coats_comes_back(form, tmp_path):
    net, _, _ = one_layer(coats=4, k=0.4, coat_rule="even")
    found = load(extract(net).save(tmp_path / "t", **form))
    assert found.book == coat_book(4, "even") and found.book.codes == 5 and verify(found).holds
    plain = found.apply(nn.Sequential(nn.Linear(16, 9, bias=False)))
    assert torch.equal(plain(torch.eye(16)), net.eval()(torch.eye(16)))


def test_rules_that_say_the_same_are_one_search():
    one = {SearchSettings("coats", coats=1, coat_rule=rule).settled() for rule in COAT_RULES}
    two = {SearchSettings("coats", coats=2, coat_rule=rule).settled() for rule in COAT_RULES}
    assert len(one) == 1 and {settings.coat_rule for settings in two} == {"even", "thirds"}
    assert all(coat_counts(2, "even", kept) == coat_counts(2, "halves", kept) for kept in range(1000))
    assert coat_book(2, "even") == coat_book(2, "halves")
    assert len({SearchSettings("coats", coats=3, coat_rule=rule).settled() for rule in COAT_RULES}) == 3


@pytest.mark.parametrize(("options", "words"), [({"coats": 0}, "coats is 0"), ({"coats": 17}, "at most 16"),
                                                ({"coat_rule": "odd"}, "unknown coat_rule 'odd'")])
def test_what_is_no_number_of_coats_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        SearchSettings("coats", **options)

"""Slot machines against a plain reading of the paper on small cases: which draw of which edges is used, the gradient of every
draw's score, what is sampled, what is refused, and that tickets and states come back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from popup import SearchSettings, UsageError, advance, attach, extract, load, merge, scores, verify
from popup.search.network import search_of
from popup.source.books import several_draws
from popup.source.layer_source import draw_values
from popup.source.streams import Stream
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove


def one_layer(k=0.5, er_p=0.8, draws=3, weights="uniform", inputs=16, outputs=9, **settings):
    net = attach(nn.Sequential(nn.Linear(inputs, outputs, bias=False)), er_p=er_p, k=k, weights=weights,
                 search=SearchSettings("draws", draws=draws, **settings))
    return net, search_of(net).layers[0], scores(net)[0]


def pass_through(net, layer):
    """W_eff of a training pass, flat at the edges, and dL/dW_eff for the loss sum(W_eff * C) with a random C."""
    cotangent = torch.randn(layer.spec.shape, generator=torch.Generator().manual_seed(1))
    output = net.train()(torch.eye(layer.spec.shape[1]))
    (output.T * cotangent).sum().backward()
    places = layer.flat_edges()
    return output.detach().T.flatten()[places].numpy(), cotangent.flatten()[places].numpy()


def reels(layer, count):
    """The draws [count, edges] from the seed's streams: the first weights, then those of the redraws."""
    edges, recipe = layer.flat_edges().numpy(), layer.recipe
    return np.stack([draw_values(recipe, layer.spec, layer.p_l, edges, f"redraw {turn}" if turn else "weights")
                     for turn in range(count)])


def greedy(found, own, kept):
    """Edge by edge the draw of its highest score, of the `kept` edges whose highest scores are the highest: weights, codes."""
    best = [max(range(len(found)), key=lambda draw: (found[draw, edge], -draw)) for edge in range(found.shape[1])]
    order = sorted(range(len(best)), key=lambda edge: (-found[best[edge], edge], edge))[:kept]
    weights, codes = np.zeros(len(best), np.float32), np.zeros(len(best), int)
    for edge in order:
        weights[edge], codes[edge] = own[best[edge], edge], best[edge] + 1
    return weights, codes


@pytest.mark.parametrize("draws", [2, 3, 8])
@pytest.mark.parametrize("weights", ["uniform", "signed_constant"])
def test_the_draw_of_the_highest_score_is_used_and_every_draw_has_a_gradient(weights, draws):
    net, layer, score = one_layer(draws=draws, weights=weights)
    assert score.shape == (draws * layer.count,)
    weight, gradient = pass_through(net, layer)
    found, own = score.detach().numpy().reshape(draws, -1), reels(layer, draws)
    expected, codes = greedy(found, own, layer.kept)
    assert np.array_equal(weight, expected) and np.array_equal(extract(net).layers[0].codes, codes)
    assert len(set(codes)) == draws + 1 and np.count_nonzero(codes) == layer.kept == int(0.5 * layer.count + 0.5)
    assert score.grad.numpy().reshape(draws, -1) == pytest.approx(gradient * own)


def test_the_first_draws_scores_are_the_same_however_many_there_are():
    few, many = (one_layer(draws=draws)[2].detach() for draws in (2, 5))
    assert torch.equal(few, many[:len(few)])
    words = Stream(0, "scores", "0.weight").words32(len(many))
    assert np.allclose(many.numpy(), ((words + 0.5) / 2**31 - 1) / 4)  # uniform in +-1 / sqrt(16)


def test_ties_go_to_the_lower_draw_and_the_lower_edge():
    net, layer, score = one_layer(k=0.25)
    score.data.fill_(-1.0)
    codes = extract(net).layers[0].codes
    assert codes.tolist() == [1] * layer.kept + [0] * (layer.count - layer.kept)
    score.data.view(3, -1)[1:, 4] = 2.0
    codes = extract(net).layers[0].codes
    assert codes[4] == 2 and codes.tolist().count(1) == layer.kept - 1


@pytest.mark.parametrize("kind", ["nan", "inf", "-inf"])
def test_scores_that_are_no_numbers_change_no_count(kind):
    net, layer, score = one_layer()
    score.data[::2] = float(kind)
    assert np.count_nonzero(extract(net).layers[0].codes) == layer.kept


def test_sampled_passes_use_draws_by_the_softmax_of_their_scores_and_the_ticket_the_highest():
    net, layer, score = one_layer(draw_choice="sampled", k=1.0, draws=3)
    score.data.copy_(torch.tensor([0.0, 1.0, -1.0]).repeat_interleave(layer.count))
    own, counts = reels(layer, 3), np.zeros(3)
    torch.manual_seed(0)
    for _ in range(60):
        weight, gradient = pass_through(net, layer)
        counts += [(weight == each).sum() for each in own]
    chance = np.exp([0, 1, -1]) / np.exp([0, 1, -1]).sum()
    total = 60 * layer.count
    assert counts.sum() == total and np.abs(counts / total - chance).max() < 5 * np.sqrt(0.25 / total)
    assert score.grad.numpy().reshape(3, -1) == pytest.approx(60 * gradient * own, rel=1e-4)
    assert extract(net).layers[0].codes.tolist() == [2] * layer.count
    assert not search_of(net).trains_the_ticket()


def test_an_annealed_search_keeps_more_edges_with_scaled_weights():
    net, layer, score = one_layer(k=0.25, anneal="linear", anneal_until=0.5)
    advance(net, 0.25)  # k is 0.625
    weight, gradient = pass_through(net, layer)
    found, own = score.detach().numpy().reshape(3, -1), reels(layer, 3)
    expected, _ = greedy(found, own, int(0.625 * layer.count + 0.5))
    scale = np.float32(np.sqrt(0.25 / 0.625))
    assert weight == pytest.approx(expected * scale)
    assert score.grad.numpy().reshape(3, -1) == pytest.approx(gradient * own * scale)


@pytest.mark.parametrize("form", [{}, {"compress": True}, {"embed_weights": True}, {"embed_weights": True, "compress": True}])
@pytest.mark.parametrize("draws", [2, 8, 255])
def test_a_ticket_of_draws_comes_back_and_is_proved(draws, form, tmp_path):
    net, layer, _ = one_layer(draws=draws)
    ticket = extract(net)
    found = load(ticket.save(tmp_path / "t", **form))
    assert found.book == several_draws(draws) and verify(found).holds
    assert found.layers[0].codes.dtype == np.uint8 and np.array_equal(found.layers[0].codes, ticket.layers[0].codes)
    plain = found.apply(nn.Sequential(nn.Linear(16, 9, bias=False)))
    assert torch.equal(plain(torch.eye(16)), net.eval()(torch.eye(16))) and torch.equal(merge(net)[0].weight, plain[0].weight)
    before = frozen_hashes(net)
    proof = prove(net, before, torch.eye(16), found, nn.Sequential(nn.Linear(16, 9, bias=False)))
    assert proof.holds and proof.redrawn == int((found.layers[0].codes > 1).sum()) > 0
    layer.drawn[1] *= -1  # weights that no stream gives
    assert not prove(net, before, torch.eye(16)).holds


def test_states_and_copies_go_on_with_the_same_draws():
    def trained(net, steps):
        optimizer = torch.optim.SGD(scores(net), 0.5)
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.ones(2, 16)).square().sum().backward()
            optimizer.step()
            advance(net, 0.5)
        return net

    net, other = trained(one_layer()[0], 3), one_layer()[0]
    other.load_state_dict(net.state_dict())
    twin = copy.deepcopy(net)
    expected = extract(trained(net, 2)).layers[0].codes
    assert all(np.array_equal(expected, extract(trained(each, 2)).layers[0].codes) for each in (other, twin))


def test_layers_that_compute_on_their_edges_alone_learn_the_same():
    found = []
    for compute in ("dense", "sparse"):
        net = attach(nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20)), er_p=0.2, k=0.5, compute=compute,
                     search=SearchSettings("draws", draws=3))
        net(torch.randn(5, 40, generator=torch.Generator().manual_seed(0))).square().sum().backward()
        found.append([score.grad for score in scores(net)])
    assert all(one.shape == other.shape and torch.allclose(one, other, atol=1e-5) for one, other in zip(*found, strict=True))


def test_given_weights_and_numbers_that_are_none_are_refused():
    with pytest.raises(UsageError, match="draws weights anew from the seed"):
        attach(nn.Linear(5, 4), er_p=1.0, weights="given", method="draws")
    for draws, words in ((1, "2 or more"), (256, "at most 255")):
        with pytest.raises(UsageError, match=words):
            SearchSettings("draws", draws=draws)
    with pytest.raises(UsageError, match="unknown draw_choice 'best'"):
        SearchSettings("draws", draw_choice="best")

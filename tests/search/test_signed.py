"""The signed method on small cases: which edges are kept with which sign, the gradient, annealing, biases and state_dicts."""

from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from popup import SearchSettings, advance, attach, extract, load, merge, scores, verify
from popup.search.layer_state import LayerState
from popup.search.network import search_of
from popup.source.books import SIGNED


def one_layer(k=0.5, er_p=1.0, **settings):
    net = attach(nn.Sequential(nn.Linear(8, 6, bias=False)), er_p=er_p, k=k, weights="kaiming_normal",
                 search=SearchSettings("signed", **settings))
    return net, search_of(net).layers[0], scores(net)[0]


def pass_through(net, layer):
    """W_eff of a training pass, flat at the edges, and dL/dW_eff for the loss sum(W_eff * C) with a random C."""
    cotangent = torch.randn(layer.spec.shape, generator=torch.Generator().manual_seed(1))
    output = net.train()(torch.eye(layer.spec.shape[1]))
    (output.T * cotangent).sum().backward()
    places = layer.flat_edges()
    return output.detach().T.flatten()[places].numpy(), cotangent.flatten()[places]


@pytest.mark.parametrize("er_p", [1.0, 0.7])
def test_the_largest_sizes_are_kept_with_their_sign_and_the_gradient_has_none(er_p):
    net, layer, score = one_layer(er_p=er_p)
    weight, gradient = pass_through(net, layer)
    found = score.detach().numpy()
    best = np.argsort(-np.abs(found), kind="stable")[:layer.kept]
    expected = np.zeros_like(found)
    expected[best] = layer.values.numpy()[best] * np.sign(found[best])
    assert np.array_equal(weight, expected) and 0 < (found[best] < 0).sum() < layer.kept
    assert torch.equal(score.grad, gradient * layer.values)


def test_zeros_and_what_is_no_number_have_the_weights_own_sign():
    net, layer, score = one_layer(k=1.0)
    special = torch.tensor([0.0, -0.0, float("nan"), -float("nan"), 1e-45, -1e-45, float("inf"), -float("inf")])
    score.data.copy_(special.repeat(6))
    codes = extract(net).layers[0].codes
    assert codes.dtype == np.uint8 and codes[:8].tolist() == [1, 1, 1, 1, 1, 2, 1, 2] and SIGNED.holds(torch.from_numpy(codes))
    weight, _ = pass_through(net, layer)
    assert np.array_equal(weight[:8], layer.values[:8].numpy() * np.array([1, 1, 1, 1, 1, -1, 1, -1], np.float32))


def test_an_annealed_search_keeps_more_with_scaled_weights_and_its_ticket_just_k():
    net, layer, score = one_layer(k=0.25, anneal="linear", anneal_until=0.5)
    for progress, kept in ((0.0, 1.0), (0.25, 0.625), (0.5, 0.25), (1.0, 0.25)):
        if progress:
            advance(net, progress)
        score.grad = None
        weight, gradient = pass_through(net, layer)
        found, scale = score.detach().numpy(), np.float32(sqrt(0.25 / kept))
        best = np.argsort(-np.abs(found), kind="stable")[:int(kept * 48 + 0.5)]
        assert set(np.flatnonzero(weight)) == set(best)
        assert weight[best] == pytest.approx(layer.values.numpy()[best] * np.sign(found[best]) * scale)
        assert score.grad.numpy() == pytest.approx((gradient * layer.values * scale).numpy())
        assert extract(net).layers[0].kept == 12


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_biases_are_searched_with_signs(scope, tmp_path):
    net = attach(nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)), er_p=0.8, k=0.5, bias="search", method="signed",
                 scope=scope)
    points = torch.randn(5, 8)
    net(points).square().sum().backward()
    torch.optim.SGD(scores(net), 1.0).step()
    ticket = load(extract(net).save(tmp_path / "t"))
    assert [layer.spec.name for layer in ticket.layers] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert {1, 2} <= set(np.concatenate([ticket.layers[1].codes, ticket.layers[3].codes]).tolist())
    plain = ticket.apply(nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6)))
    assert torch.equal(plain(points), net.eval()(points)) and verify(ticket).holds


def test_a_state_dict_goes_on_with_the_same_codes():
    def trained(net, steps):
        optimizer = torch.optim.SGD(scores(net), 0.5)
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.ones(2, 8)).square().sum().backward()
            optimizer.step()
            advance(net, 0.5)
        return net

    net = trained(one_layer()[0], 3)
    other = one_layer()[0]
    other.load_state_dict(net.state_dict())
    assert np.array_equal(extract(net).layers[0].codes, extract(other).layers[0].codes)
    assert all(map(torch.equal, scores(trained(net, 2)), scores(trained(other, 2))))
    assert torch.equal(merge(net)[0].weight, merge(other)[0].weight)


def test_a_sign_that_turns_is_written_into_the_weight_that_is_kept():
    """Without another edge being selected: only the code differs."""
    net, layer, score = one_layer()
    pass_through(net, layer)
    cached = search_of(net).groups[0].cached_weight
    before, kept = cached.weights[0].clone(), cached.weights[0]
    edge = int(score.detach().abs().argmax())
    score.data[edge] *= -1
    pass_through(net, layer)
    assert cached.weights[0] is kept, "written to, not made anew"
    changed = (kept != before).flatten().nonzero().flatten().tolist()
    assert changed == [edge] and torch.equal(kept, LayerState.dense(layer, search_of(net).codes()[0]))


def test_units_stay_alive_where_few_edges_are_kept():
    """From scores as small as edge_popup's every unit of the second layer is dead after these steps, and no gradient is left."""
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(400, 64, generator=generator), torch.arange(400) % 10
    points[torch.arange(400), 6 * labels] += 4
    net = attach(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)), er_p=0.2,
                 k=0.05, density="erk", method="signed")
    optimizer = torch.optim.SGD(scores(net), 0.1, momentum=0.9)
    for step in range(120):
        part = slice(32 * step % 384, 32 * step % 384 + 32)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(points[part]), labels[part])
        loss.backward()
        optimizer.step()
    alive = [int((net[:place](points) > 0).any(0).sum()) for place in (2, 4)]
    assert alive[0] > 100 and alive[1] > 30 and float(loss.detach()) < 1.5, (alive, float(loss.detach()))


def test_first_scores_follow_what_a_unit_keeps():
    for k, er_p in ((0.5, 1.0), (0.02, 0.5)):
        _, layer, score = one_layer(k, er_p)
        bound = 3 / sqrt(8 * layer.kept / 48)
        assert 0.9 * bound < float(score.detach().abs().max()) <= bound
    plain = attach(nn.Sequential(nn.Linear(8, 6, bias=False)), er_p=1.0)
    former = one_layer(score_unit="fan_in", score_scale=1 / 3)[2]
    assert torch.allclose(scores(plain)[0], former), "as it was before"

"""Methods that redraw, freeze or sample while they search, against their papers on small cases: iterand, gem_miner,
sampled and gates."""

from math import log, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from popup import Config, SearchSettings, UsageError, advance, attach, densities, extract, load, merge, penalty, scores, verify
from popup.search.methods.gates import mean_gate
from popup.search.network import search_of
from popup.source.layer_source import draw_layer
from popup.source.streams import Stream
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove
from tests.search.one_layer import one_layer, pass_through


def redrawn(steps=9, **options):
    """A search by iterand with a redraw every second step, the scores shuffled after each."""
    net, layer, score = one_layer("iterand", er_p=0.8, redraw_every=2, redraw_rate=0.5, weights="kaiming_normal", **options)
    method = search_of(net).method
    history = [(method.weights(layer).clone(), search_of(net).select()[0].clone())]
    for step in range(steps):
        score.data.copy_(torch.rand(len(score), generator=torch.Generator().manual_seed(step)))
        advance(net, (step + 1) / 10)
        history.append((method.weights(layer).clone(), search_of(net).select()[0].clone()))
    return net, layer, history


def test_iterand_redraws_only_unselected_edges_at_its_steps_and_by_the_stream():
    net, layer, history = redrawn()
    expected, fresh = history[0][0].clone(), {}
    for step, (values, selected) in enumerate(history[1:], 1):
        if step % 2 == 0 and step / 10 < 0.9:
            turn = step // 2
            words = Stream(0, f"redraw {turn} chosen", "0.weight").words32(layer.count)
            source = draw_layer(search_of(net).recipe, layer.spec, layer.p_l)
            signs = Stream(0, f"redraw {turn}", "0.weight")
            from scipy.special import ndtri  # the weights' own recipe, worked out again
            normal = ndtri((signs.words32(48)[source.edges].astype(np.float64) + 0.5) * 2.0**-32).astype(np.float32)
            fresh[turn] = normal * np.float32(sqrt(2) / sqrt(8 * 0.8 * 0.5))
            chosen = (words < 2**31) & ~selected.numpy()
            assert 0 < chosen.sum() < layer.count
            expected[chosen] = torch.from_numpy(fresh[turn])[chosen]
        assert torch.equal(values, expected), step
        assert torch.equal(values[selected], history[step - 1][0][selected])  # what is selected stays
    assert len(fresh) == 4


def test_an_iterand_ticket_is_drawn_again_from_its_seed_and_its_redraws(tmp_path):
    net, layer, _ = redrawn()
    path = extract(net).save(tmp_path / "ticket.safetensors")
    ticket = load(path)
    plain = ticket.apply(nn.Sequential(nn.Linear(8, 6, bias=False)))
    assert torch.equal(plain(torch.eye(8)), net.eval()(torch.eye(8))) and verify(ticket).holds
    codes = ticket.layers[0].codes
    assert set(codes) <= {0, 1, 2, 3, 4, 5} and ticket.book.redrawn(codes) == int((codes > 1).sum()) > 0
    assert np.array_equal(codes != 0, search_of(net).select()[0].numpy())
    assert prove(net, frozen_hashes(net), torch.eye(8)).holds
    layer.drawn[search_of(net).select()[0].nonzero()[0]] *= -1  # a weight that no stream gives
    assert not prove(net, frozen_hashes(net), torch.eye(8)).holds


def test_an_iterand_ticket_counts_beyond_16_bits(tmp_path):
    net, layer, _ = redrawn()
    kept = search_of(net).select()[0].nonzero().flatten()
    layer.memory("redraw")[kept[:3]] = torch.tensor([65535, 65536, 70000], dtype=torch.int32)
    layer.redraw_as_remembered()
    ticket = load(extract(net).save(tmp_path / "ticket.safetensors"))
    assert ticket.layers[0].codes[kept[:3]].tolist() == [65536, 65537, 70001] and verify(ticket).holds


def test_iterand_refuses_weights_that_no_seed_draws():
    with pytest.raises(UsageError, match="draws weights anew"):
        one_layer("iterand", weights="given")


def test_gem_miner_rounds_and_passes_the_gradient_straight_through():
    net, layer, score = one_layer("gem_miner", er_p=0.7)
    assert 0 <= float(score.detach().min()) < 0.1 and 0.9 < float(score.detach().max()) <= 1
    weight, gradient = pass_through(net, layer)
    assert torch.equal(weight, layer.values * (score.detach() >= 0.5))
    assert torch.equal(score.grad, gradient * layer.values)
    assert float(penalty(net).detach()) == pytest.approx(1e-5 * float(score.detach().square().sum()))


def test_gem_miner_clamps_and_freezes_in_a_geometric_course_down_to_exactly_k():
    net, layer, score = one_layer("gem_miner", inputs=50, outputs=20, k=0.1)
    free = []
    for step in range(110):
        score.data += torch.randn(len(score), generator=torch.Generator().manual_seed(step)) / 5
        lowest = layer.memory("free").clone()
        advance(net, (step + 1) / 110)
        assert float(score.detach().min()) >= 0 and float(score.detach().max()) <= 1
        now = layer.memory("free")
        assert not (now & ~lowest).any()  # for good
        if int(now.sum()) < int(lowest.sum()):
            assert score[lowest & ~now].max() <= score[now].min()
        free.append(int(now.sum()))
    course = [round(1000 * 0.1 ** (part / 10)) for part in range(11)]
    assert sorted(set(free), reverse=True) == course and free[9] == course[1] and free[-1] == layer.kept == 100
    assert np.array_equal(extract(net).layers[0].selected, layer.memory("free").numpy())


def test_sampled_draws_each_edge_with_its_own_probability():
    net, layer, score = one_layer("sampled", k=0.3)
    assert float(score.detach().mean()) == pytest.approx(log(0.3 / 0.7), abs=0.1)
    score.data.copy_(torch.linspace(-4, 4, len(score)))
    torch.manual_seed(0)
    drawn = torch.stack([(pass_through(net, layer)[0] != 0).float() for _ in range(400)]).mean(0)
    chance = 1 / (1 + np.exp(-score.detach().numpy().astype(np.float64)))
    assert abs(drawn.numpy() - chance).max() < 5 * 0.5 / 20  # five deviations
    score.grad = None
    _, gradient = pass_through(net, layer)
    expected = gradient.numpy() * layer.values.numpy() * chance * (1 - chance)
    assert np.allclose(score.grad.numpy(), expected, rtol=1e-5, atol=1e-9)
    best = set(np.argsort(-score.detach().numpy(), kind="stable")[:layer.kept])
    assert set(np.flatnonzero(extract(net).layers[0].selected)) == best


def test_the_penalty_of_sampled_is_the_squared_distance_from_the_tickets_density():
    net, _, score = one_layer("sampled", k=0.25)
    score.data.zero_()
    assert float(penalty(net).detach()) == pytest.approx(1e-3 * 48 * 0.25**2)
    penalty(net).backward()
    assert score.grad.numpy() == pytest.approx(1e-3 * 2 * 0.25 * 0.25)  # d/ds of the mean of sigmoid: 1/4 an edge


def test_gates_are_clipped_noise_with_a_gradient_where_they_are_open():
    net, layer, score = one_layer("gates", inputs=40, outputs=30)
    torch.manual_seed(0)
    noise = torch.randn(layer.count)
    gate = (score.detach() + 0.5 * noise).clamp(0, 1)
    torch.manual_seed(0)
    weight, gradient = pass_through(net, layer)
    scale = (layer.kept / (gate**2).sum()).sqrt()
    assert weight.numpy() == pytest.approx((layer.values * gate * scale).numpy())
    assert score.grad.numpy() == pytest.approx((gradient * layer.values * ((gate > 0) & (gate < 1)) * scale).numpy())
    assert float((weight**2).sum()) == pytest.approx(float((layer.values**2).sum()) * layer.kept / layer.count), "the ticket's"
    assert 0.1 < float((gate == 0).float().mean()) < 0.4  # P(e < -1/2) is 0.16 at s = 1/2


@pytest.mark.parametrize("k", [0.05, 0.3, 0.5, 0.9])
def test_gates_start_where_their_mean_is_k(k):
    _, _, score = one_layer("gates", inputs=100, outputs=100, k=k, score_scale=1e-6)
    center = float(score.detach().mean())
    noise = np.random.default_rng(0).normal(size=400_000) * 0.5
    assert np.clip(center + noise, 0, 1).mean() == pytest.approx(k, abs=0.005)
    assert mean_gate(center, 0.5) == pytest.approx(k, abs=1e-6)


def test_the_penalty_of_gates_is_what_is_open_beyond_the_tickets_edges():
    net, _, score = one_layer("gates", k=0.5)
    score.data.fill_(0.5)
    assert float(penalty(net).detach()) == pytest.approx(1e-3 * (48 * 0.841344746 - 24), rel=1e-5)  # Phi(1)
    score.data.fill_(-0.5)
    assert float(penalty(net).detach()) == 0


def searched(method, steps=40, **settings):
    """A network of two layers whose first has the larger scores, after a search with noise in the place of gradients."""
    net = attach(nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10)), er_p=1.0, k=0.3,
                 search=SearchSettings(method, **settings))
    noise = torch.Generator().manual_seed(0)
    for step in range(steps):
        with torch.no_grad():
            for size, score in zip((0.2, 0.01), scores(net), strict=True):
                score.add_(size * torch.rand(len(score), generator=noise))
        net(torch.ones(1, 10))
        advance(net, (step + 1) / steps)
    return net


def test_gem_miner_freezes_over_the_whole_network_under_a_global_scope():
    kept = [row.kept for row in densities(searched("gem_miner", scope="global"))]
    assert sum(kept) == 60 and kept[0] > 40
    floored = densities(searched("gem_miner", scope="global", floor=0.9))
    assert [row.kept for row in floored] == [33, 27]
    assert [row.kept for row in densities(searched("gem_miner"))] == [30, 30]


def test_iterand_redraws_no_edge_that_an_annealed_search_uses():
    net = attach(nn.Linear(40, 20), er_p=1.0, k=0.2,
                 search=SearchSettings("iterand", anneal="linear", redraw_every=1, redraw_rate=1.0))
    layer = search_of(net).layers[0]
    for step in range(1, 6):
        before = layer.memory("redraw").clone()
        advance(net, step / 10)
        used, changed = search_of(net).method.gates(search_of(net))[0].codes != 0, layer.memory("redraw") != before
        assert layer.kept < int(used.sum()) < layer.count
        assert bool(changed.any()) and not bool((changed & used).any())


def test_gates_learn_by_the_ticket_in_the_second_half_and_what_was_before_stays():
    net, layer, score = one_layer("gates", er_p=0.7)
    layer.memory("scale").fill_(2.0)
    x = torch.randn(5, 8)
    for progress, hard in ((0.0, False), (0.49, False), (0.5, True), (1.0, True)):
        search_of(net).progress, score.grad = progress, None
        seen = net.train()(x)
        assert torch.equal(seen, net.eval()(x)) == hard, "the ticket's own output"
        net.train()(x).square().sum().backward()
        if hard:  # straight through: dL/dW_eff * W, of all edges
            weight = merge(net)[0].weight.detach().clone().requires_grad_(True)
            torch.nn.functional.linear(x, weight).square().sum().backward()
            assert torch.allclose(score.grad, weight.grad.flatten()[layer.places().long()] * layer.values, rtol=1e-4, atol=1e-6)
    former, _, _ = one_layer("gates", er_p=0.7, hard_from=1.0)
    search_of(former).progress = 0.99
    assert not torch.equal(former.train()(x), former.eval()(x))
    assert Config().replace(method="gates", hard_from=1.0).hash() == "73c3daf93dfb" != Config().replace(method="gates").hash()

"""Each method against its paper on small cases: the forward mask, the score gradient and the course of the search, worked
out here by hand or in a few lines of numpy. (That all keep the laws: tests/test_laws.py.)"""

from itertools import pairwise
from math import log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from popup import (
    Config,
    SearchSettings,
    UsageError,
    advance,
    attach,
    densities,
    extract,
    load,
    merge,
    penalty,
    scores,
    verify,
)
from popup.search.keys import magnitude_keys, signed_keys
from popup.search.methods import METHODS
from popup.search.methods.gates import mean_gate
from popup.search.network import search_of
from popup.search.schedule import SCHEDULES, k_at
from popup.search.select import Bracket, Ranked, top_globally
from popup.source.layer_source import draw_layer
from popup.source.streams import Stream
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove


def one_layer(method, inputs=8, outputs=6, er_p=1.0, k=0.5, **options):
    """A linear layer without bias, its layer in the search and its scores."""
    settings = SearchSettings(method, **{name: options.pop(name) for name in [*options] if name in vars(SearchSettings())})
    net = attach(nn.Sequential(nn.Linear(inputs, outputs, bias=False)), er_p=er_p, k=k, search=settings, **options)
    return net, search_of(net).layers[0], scores(net)[0]


def pass_through(net, layer):
    """W_eff of a training pass, flat at the edges, and dL/dW_eff for the loss sum(W_eff * C) with a random C."""
    cotangent = torch.randn(layer.spec.shape, generator=torch.Generator().manual_seed(1))
    net.train()
    output = net(torch.eye(layer.spec.shape[1]))  # [in, out]: W_eff transposed
    (output.T * cotangent).sum().backward()
    places = layer.flat_edges()
    return output.detach().T.flatten()[places], cotangent.flatten()[places]


def test_by_value_the_largest_scores_are_kept_and_the_gradient_has_no_sign():
    net, layer, score = one_layer("edge_popup", rank="value", k=0.25)
    weight, gradient = pass_through(net, layer)
    best = np.argsort(-score.detach().numpy(), kind="stable")[:12]
    assert set(np.flatnonzero(weight)) == set(best) and bool((score[best] > 0).all())
    assert torch.equal(score.grad, gradient * layer.values)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_signed_keys_sort_as_numbers_do(values):
    keys = signed_keys(torch.tensor(values, dtype=torch.float32)).tensor().tolist()
    for (one, first), (other, second) in pairwise(sorted(zip(values, keys, strict=True))):
        assert (first < second) if one < other else first == second


def test_random_is_a_random_ticket_and_never_learns():
    net, layer, score = one_layer("random", er_p=0.7)
    before, first = extract(net), score.detach().clone()
    pass_through(net, layer)
    assert score.grad.count_nonzero() == 0 and not METHODS["random"].learns
    torch.optim.SGD([score], lr=1.0).step()
    assert torch.equal(score, first) and np.array_equal(before.layers[0].selected, extract(net).layers[0].selected)
    kept = [one_layer("random", seed=seed)[0] for seed in range(200)]
    share = np.mean([extract(net).layers[0].selected for net in kept], axis=0)
    assert abs(share - 0.5).max() < 0.2  # five deviations of a fair coin's mean


def test_frozen_locks_the_edges_that_the_stream_says_and_searches_the_others():
    net, layer, score = one_layer("frozen", er_p=0.8, k=0.5, locked=0.3, seed=3)
    words = Stream(3, "locked", "0.weight").words32(layer.count)
    count = int(0.3 * layer.kept + 0.5)
    locked = set(np.argsort(words, kind="stable")[:count])
    assert set(np.flatnonzero(layer.memory("locked"))) == locked
    weight, gradient = pass_through(net, layer)
    others = [edge for edge in np.argsort(-score.detach().abs().numpy(), kind="stable") if edge not in locked]
    assert set(np.flatnonzero(weight)) == locked | set(others[:layer.kept - count])
    expected = gradient * layer.values * score.detach().sign()
    expected[sorted(locked)] = 0
    assert torch.equal(score.grad, expected)


@pytest.mark.parametrize("locked", [0.0, 1.0])
def test_frozen_at_its_ends_is_edge_popup_or_a_random_ticket(locked):
    net, layer, score = one_layer("frozen", locked=locked)
    plain, _, same = one_layer("edge_popup")
    assert torch.equal(score, same)
    if not locked:
        assert np.array_equal(extract(net).layers[0].selected, extract(plain).layers[0].selected)
    else:
        score.data.uniform_(-5, 5)
        assert np.array_equal(extract(net).layers[0].selected, layer.memory("locked").numpy())


def test_frozen_keeps_locked_edges_under_any_scores_and_a_global_scope():
    net = attach(nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 5)), er_p=0.9, k=0.4,
                 search=SearchSettings("frozen", scope="global", locked=0.5))
    for score in scores(net):
        score.data.fill_(float("nan"))
    search = search_of(net)
    for layer, mask in zip(search.layers, search.select(), strict=True):
        assert bool(mask[layer.memory("locked")].all()) and layer.memory("locked").any()
    assert sum(int(mask.sum()) for mask in search.select()) == sum(layer.kept for layer in search.layers)


def test_biprop_has_one_scale_a_layer_the_mean_size_of_the_cached_weights():
    net, layer, score = one_layer("biprop", er_p=0.8, k=0.4, weights="kaiming_normal")
    weight, gradient = pass_through(net, layer)
    values, kept = layer.values.numpy(), np.argsort(-score.detach().abs().numpy(), kind="stable")[:layer.kept]
    alpha = np.float32(np.abs(values[kept].astype(np.float64)).sum() / layer.kept)
    expected = np.zeros_like(values)
    expected[kept] = alpha * np.sign(values[kept])
    assert np.array_equal(weight.numpy(), expected)
    assert torch.equal(score.grad, gradient * layer.values * score.detach().sign())  # by W, as their code has it, not by alpha


def test_a_biprop_ticket_has_two_values_a_layer_and_recomputes_its_scale_from_the_mask(tmp_path):
    net, _, score = one_layer("biprop", weights="kaiming_normal")
    before = search_of(net).layers[0].dense(search_of(net).select()[0]).abs().max()
    score.data = score.data.flip(0)
    ticket = load(extract(net).save(tmp_path / "ticket.safetensors"))
    plain = ticket.apply(nn.Sequential(nn.Linear(8, 6, bias=False)))
    assert len(plain[0].weight.abs().unique()) == 2 and plain[0].weight.abs().max() != before
    assert torch.equal(plain(torch.eye(8)), net.eval()(torch.eye(8))) and verify(ticket).holds


def test_with_signed_constants_biprop_is_edge_popup():
    nets = [one_layer(method) for method in ("biprop", "edge_popup")]
    (weight, _), (other, _) = (pass_through(net, layer) for net, layer, _ in nets)
    assert torch.equal(weight, other) and torch.equal(nets[0][2].grad, nets[1][2].grad)


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


def test_averaged_keeps_the_highest_means_over_the_last_part():
    net, layer, score = one_layer("averaged", average_from=0.5, er_p=0.7)
    seen = []
    for step in range(10):
        score.data.copy_(torch.randn(len(score), generator=torch.Generator().manual_seed(step)))
        weight, _ = pass_through(net, layer)
        assert set(np.flatnonzero(weight)) == set(np.argsort(-score.detach().abs().numpy(), kind="stable")[:layer.kept])
        advance(net, (step + 1) / 10)
        seen.append(score.detach().abs().numpy())
        mean = np.mean(seen[4:], axis=0) if step >= 4 else seen[-1]
        assert layer.memory("mean").numpy() == pytest.approx(mean, abs=1e-6)
    best = np.argsort(-layer.memory("mean").numpy(), kind="stable")[:layer.kept]
    assert set(np.flatnonzero(extract(net).layers[0].selected)) == set(best)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_go_from_their_start_to_k_and_never_below(schedule):
    course = [k_at(schedule, 1.0, 0.2, step / 20, 0.6) for step in range(21)]
    assert course[0] == pytest.approx(0.2 if schedule == "none" else 1.0) and set(course[12:]) == {0.2}
    assert all(one >= other for one, other in pairwise(course)) and min(course) == 0.2
    assert k_at(schedule, 0.1, 0.2, 0.0, 0.5) == 0.2


def test_schedules_half_way():
    assert [k_at(name, 1.0, 0.25, 0.3, 0.6) for name in ("linear", "cubic", "geometric")] == pytest.approx(
        [0.625, 0.25 + 0.75 / 8, 0.5])


def test_an_annealed_pass_keeps_more_with_weights_scaled_for_it_and_the_ticket_exactly_k():
    net, layer, score = one_layer("edge_popup", k=0.25, anneal="linear", anneal_until=0.5)
    for progress, kept in ((0.0, 1.0), (0.25, 0.625), (0.5, 0.25), (1.0, 0.25)):
        if progress:
            advance(net, progress)
        score.grad = None
        weight, gradient = pass_through(net, layer)
        count = int(kept * 48 + 0.5)
        best = np.argsort(-score.detach().abs().numpy(), kind="stable")[:count]
        scale = np.float32(sqrt(0.25 / kept))
        assert set(np.flatnonzero(weight)) == set(best)
        assert weight.numpy()[best] == pytest.approx(layer.values.numpy()[best] * scale)
        assert score.grad.numpy() == pytest.approx((gradient * layer.values * score.detach().sign() * scale).numpy())
        assert densities(net)[0].kept == 12 and extract(net).layers[0].kept == 12


def test_a_floor_keeps_layers_from_collapsing_under_a_global_scope():
    keys = [magnitude_keys(torch.arange(1.0, 11.0) * size) for size in (100, 1)]
    masks = top_globally([Ranked(keys[place], [10], [5], [Bracket()], [floor], [place]) for place, floor in ((0, 1), (1, 3))])
    assert [int(mask.sum()) for mask in masks] == [7, 3] and masks[1].nonzero().flatten().tolist() == [7, 8, 9]
    net = attach(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10)), er_p=1.0, k=0.5,
                 search=SearchSettings(scope="global", floor=0.4))
    scores(net)[1].data *= 1e-6
    assert [row.kept for row in densities(net)] == [80, 20]


def test_search_is_not_given_twice():
    with pytest.raises(UsageError, match="beside"):
        attach(nn.Linear(3, 2), er_p=1.0, method="random", search=SearchSettings())


CHANGED = {"rank": "value", "score_scale": 2.0, "anneal": "linear", "average_from": 0.0, "locked": 0.1, "redraw_every": 1,
           "redraw_rate": 0.9, "penalty": 3.0, "coats": 2, "coat_rule": "even", "draws": 3, "draw_choice": "sampled",
           "score_unit": "kept", "hard_from": 0.0}


@pytest.mark.parametrize("setting", CHANGED)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_uses_the_settings_that_it_says(method, setting):
    """Six steps of training by hand, with the setting at its default and at another value."""
    def train(**options):
        torch.manual_seed(0)
        net, _, score = one_layer(method, k=0.3, weights="kaiming_normal", **options)
        optimizer, seen = torch.optim.SGD([score], 0.1), []
        for step in range(6):
            loss = net(torch.randn(4, 8)).square().mean() + penalty(net)
            if score.requires_grad and METHODS[method].learns:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            advance(net, (step + 1) / 6)
            seen += [loss.detach(), search_of(net).select()[0]]
        assert bool(loss.isfinite())
        return seen

    often = {"redraw_every": 2}
    changed = "fan_in" if setting == "score_unit" and METHODS[method].score_unit == "kept" else CHANGED[setting]
    usual, other = train(**often), train(**often | {setting: changed})
    same = all(map(torch.equal, usual, other))
    assert same == (setting not in METHODS[method].uses)


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


def test_random_under_a_global_scope_prefers_no_layer():
    net = attach(nn.Sequential(nn.Linear(784, 20), nn.Linear(20, 100)), er_p=1.0, k=0.1, method="random", scope="global")
    assert [row.density for row in densities(net)] == pytest.approx([0.1, 0.1], abs=0.02)


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

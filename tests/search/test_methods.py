"""Each method against its paper on small cases, worked out here by hand or in a few lines of numpy: those with one mask of edges
that stay; schedules; and which settings a method uses. (That all keep the laws: tests/test_laws.py.)"""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from popup import SearchSettings, UsageError, advance, attach, densities, extract, load, penalty, scores, verify
from popup.search.keys import magnitude_keys, signed_keys
from popup.search.methods import METHODS
from popup.search.network import search_of
from popup.search.schedule import SCHEDULES, k_at
from popup.search.select import Bracket, Ranked, top_globally
from popup.source.streams import Stream
from tests.search.one_layer import one_layer, pass_through


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


def test_random_under_a_global_scope_prefers_no_layer():
    net = attach(nn.Sequential(nn.Linear(784, 20), nn.Linear(20, 100)), er_p=1.0, k=0.1, method="random", scope="global")
    assert [row.density for row in densities(net)] == pytest.approx([0.1, 0.1], abs=0.02)

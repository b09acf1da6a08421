"""The effective weight that is kept from pass to pass is never seen to be: every use gives what weights made anew give."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from popup import SearchSettings, attach, merge, scores
from popup.search.cached_weight import CachedWeight, differing
from popup.search.edge_group import EdgeGroup, each_layer
from popup.search.gate import Gate
from popup.search.methods import METHODS
from popup.search.network import advance, search_of

SETTINGS = {method: SearchSettings(method) for method in METHODS} | {
    "annealed": SearchSettings(anneal="linear"), "annealed and signed": SearchSettings("signed", anneal="linear"),
    "redrawn": SearchSettings("iterand", redraw_every=1, redraw_rate=0.5)}
INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(1))


def linear():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def images():
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.Tanh(), nn.Conv2d(8, 6, (2, 3)), nn.Flatten(), nn.Linear(18, 4))


NETWORKS = {"linear": linear, "contiguous": images, "channels_last": lambda: images().to(memory_format=torch.channels_last)}


def attached(settings, network="linear", er_p=0.7):
    net = attach(NETWORKS[network](), er_p=er_p, k=0.5, seed=2, search=settings)
    net.inputs = {"linear": INPUTS, "contiguous": IMAGES}.get(network, IMAGES.contiguous(memory_format=torch.channels_last))
    torch.manual_seed(0)
    return net


def kept(net):
    """The weight of each layer that is kept, in the network's order."""
    return list(each_layer(search_of(net).groups, [group.cached_weight.weights for group in search_of(net).groups]))


def loss(net, factor=1.0):
    return net(factor * net.inputs).square().sum()


def gradients(net, total):
    for score in scores(net):
        score.grad = None
    total.backward()
    return [score.grad.clone() for score in scores(net)]


def step(net, progress):
    for score in scores(net):
        score.data.add_(torch.randn(len(score)), alpha=0.5)
    advance(net, progress)


def two_passes_and_one_backward(net):
    return gradients(net, loss(net) + loss(net, 2.0))


def evaluation_before_the_backward_pass(net):
    total = loss(net)
    with torch.no_grad():
        loss(net.eval())
    net.train()
    return gradients(net, total)


def evaluation_in_inference_mode_and_training(net):
    found = []
    for turn in range(3):
        with torch.inference_mode():
            found.append(loss(net.eval()).clone())
        found += gradients(net.train(), loss(net))
        step(net, (turn + 1) / 3)
    with torch.inference_mode():
        found.append(loss(net.eval()).clone())
    points = net.inputs.clone().requires_grad_()
    return [*found, *torch.autograd.grad(net(points).sum(), points)]


def an_advance_before_the_backward_pass(net):
    total = loss(net)
    advance(net, 0.5)
    return gradients(net, total)


def passes_without_a_backward_pass(net):
    found = []
    for turn in range(4):
        found.append(loss(net).detach())
        step(net, turn / 4)
    return [*found, *gradients(net, loss(net))]


USES = [two_passes_and_one_backward, evaluation_before_the_backward_pass, evaluation_in_inference_mode_and_training,
        passes_without_a_backward_pass]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_use_is_as_with_weights_made_anew(settings, use, network, monkeypatch):
    found = use(attached(settings, network))
    plain = EdgeGroup.weights

    def anew(group, *arguments):
        group.cached_weight = CachedWeight(group.cached_weight.shapes)
        return plain(group, *arguments)

    monkeypatch.setattr(EdgeGroup, "weights", anew)
    assert all(map(torch.equal, found, use(attached(settings, network))))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_gradient_of_two_passes_is_the_sum_of_theirs(settings):
    joint = two_passes_and_one_backward(attached(settings))
    net = attached(settings)
    first, second = gradients(net, loss(net)), gradients(net, loss(net, 2.0))
    for together, one, other in zip(joint, first, second, strict=True):
        torch.testing.assert_close(together, one + other)


def test_an_advance_before_the_backward_pass_changes_no_gradient():
    net = attached(SETTINGS["annealed"])
    assert all(map(torch.equal, an_advance_before_the_backward_pass(net),
                   (lambda other: gradients(other, loss(other)))(attached(SETTINGS["annealed"]))))


def test_a_weight_that_somebody_has_written_to_is_made_anew():
    net = attached(SearchSettings())
    expected = [net(INPUTS), *(net[place].weight.clone() for place in (0, 2))]
    for place in (0, 2):
        nn.init.kaiming_normal_(net[place].weight)
    assert all(map(torch.equal, [net(INPUTS), net[0].weight, net[2].weight], expected))
    assert torch.equal(net(INPUTS), merge(copy.deepcopy(net))(INPUTS))


def test_a_weight_follows_values_that_somebody_has_changed():
    net = attached(SearchSettings())
    before = net[0].weight.clone()
    search_of(net).layers[0].values.mul_(-1)
    assert torch.equal(net[0].weight, -before)


def test_in_a_plain_loop_the_weight_is_written_to_and_not_made_anew():
    net = attached(SearchSettings())
    seen = set()
    for turn in range(5):
        gradients(net, loss(net))
        seen.add(kept(net)[0].data_ptr())
        step(net, turn / 5)
    assert len(seen) == 1


@pytest.mark.parametrize("er_p", [0.7, 1.0])
def test_weights_of_convolutions_lie_as_the_convolutions_want_them(er_p):
    net = attached(SearchSettings(), "channels_last", er_p)
    layers, seen = search_of(net).layers, set()
    for turn in range(5):
        gradients(net, loss(net))
        step(net, turn / 5)
        loss(net)
        for layer, mask, weight in zip(layers, search_of(net).select(), kept(net), strict=True):
            assert torch.equal(weight, layer.dense(mask))
            assert weight.dim() == 2 or weight.is_contiguous(memory_format=torch.channels_last)
        seen.add(kept(net)[0].data_ptr())
    assert len(seen) == 1, "it is written to, where it lies"


@given(st.lists(st.booleans(), max_size=40), st.data())
def test_differing_is_where_two_masks_differ(first, data):
    second = data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first)))
    first, second = (np.array(mask, dtype=bool) for mask in (first, second))
    assert differing(first, second).tolist() == np.flatnonzero(first != second).tolist()


def test_a_weight_in_channels_last_moves_to_another_device():
    net = attached(SearchSettings(), "channels_last")
    for _ in range(2):
        gradients(net, loss(net))
    net.to("meta")
    with torch.no_grad():
        for _ in range(3):
            assert net(net.inputs.to("meta")).device.type == "meta"


def test_a_gate_that_is_written_to_is_another_gate():
    """A method may give what it remembers, and change it in place."""
    class Own(METHODS["edge_popup"]):
        def first_memory(self, layer, scores, seed):
            return {"gate": self.rank(scores).tensor() > 0}

        def gates(self, state):
            return [Gate(layer.memory("gate")) for layer in state.layers]

    net = attached(SearchSettings())
    search = search_of(net)
    search.method = Own(search.settings)
    search.group(search.method.asked_together)
    for layer, score in search.pairs():
        layer.remember(search.method.first_memory(layer, score, 0))
    for _ in range(3):
        loss(net).backward()
        gate, layer = search.layers[0].memory("gate"), search.layers[0]
        assert torch.equal(kept(net)[0], layer.dense(gate))
        gate.logical_not_()


def test_what_is_read_outside_of_a_pass_is_the_readers():
    net = attached(SearchSettings())
    with torch.no_grad():
        read = [net[0].weight]
        first = read[0].clone()
        step(net, 0.5)
        read.append(net[0].weight)
    assert torch.equal(read[0], first) and not torch.equal(*read)


def test_scores_that_do_not_learn_are_passed_through():
    net = attached(SearchSettings("sampled"))
    for score in scores(net):
        score.requires_grad_(False)
    points = net.inputs.clone().requires_grad_()
    (net(points).sum() + net(points).sum()).backward()
    assert points.grad.isfinite().all()


def test_values_in_the_place_of_others_make_another_weight():
    net = attached(SearchSettings())
    loss(net).backward()
    layer = search_of(net).layers[0]
    layer.values = layer.values.half().float()
    assert torch.equal(net[0].weight, layer.dense(search_of(net).select()[0]))


def test_a_copy_made_in_a_pass_is_in_none():
    net, copies = attached(SearchSettings()), []
    net[1].register_forward_hook(lambda module, inputs, output: copies.append(copy.deepcopy(net)))
    with torch.no_grad():
        net(net.inputs)
    other = copies[0]
    step(other, 0.5)
    assert torch.equal(other[0].weight, search_of(other).layers[0].dense(search_of(other).select()[0]))


@pytest.mark.parametrize("method", ["edge_popup", "averaged", "sampled", "gem_miner"])
def test_a_graph_that_is_retained_keeps_its_weight(method):
    """For one more backward pass, though an evaluation comes between, with other edges where training is not by the ticket."""
    net = attached(SearchSettings(method))
    for score in scores(net):
        score.data.copy_(torch.rand(len(score)))
    total = net(net.inputs).square().sum()
    found = []
    for _ in range(2):
        for score in scores(net):
            score.grad = None
        total.backward(retain_graph=True)
        found.append([score.grad.clone() for score in scores(net)])
        with torch.no_grad():
            net.eval()(net.inputs)
        net.train()
    assert all(map(torch.equal, *found))


def test_a_graph_that_is_dropped_without_a_backward_pass_holds_nothing():
    net = attached(SearchSettings())
    weights = []
    for _ in range(3):
        net(net.inputs)
        weights.append(kept(net)[0])
        step(net, 0.1)
    assert weights[0] is weights[1] is weights[2]

"""Layers that compute on their edges alone compute what masked dense ones do, by each method, and keep the laws."""

import copy

import pytest
import torch
from torch import nn

import models
from popup import SearchSettings, advance, attach, detach, extract, scores
from popup.search.contract import gate_faults
from popup.search.methods import METHODS
from popup.search.network import search_of
from tests.laws import CLASSES, IMAGE, assert_laws, gates_used, law_count
from tests.search.computed import (
    PLAIN,
    Pair,
    alike,
    assert_alike,
    both,
    by_both,
    chain,
    convolutions,
    exactly,
    noise,
    sparse_of,
    trained,
)

BUILT = {"pair": (Pair, (7, 12)), "chain": (chain, (7, 12)), "convolutions": (convolutions, (4, 3, 9, 9))}


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BUILT)
def test_every_method_computes_what_it_computes_densely(name, method, scope, kernels):
    """In training and evaluation, while k falls and weights are drawn anew; the scores are set alike after each step, since
    noise can make another edge the better one."""
    build, shape = BUILT[name]
    settings = SearchSettings(method, scope, anneal="linear", redraw_every=2)
    dense, sparse = both(build, search=settings)
    assert not sparse_of(dense) and len(sparse_of(sparse)) == {"pair": 2, "chain": 3, "convolutions": 1 + 3 * (
        kernels == "numba")}[name]
    for step in range(4):
        inputs, found = noise(*shape, seed=step), []
        for net in (dense, sparse):
            torch.manual_seed(step)
            found.append(trained(net.train(), inputs))
        assert_alike(found[1], found[0])
        for one, other in zip(scores(dense), scores(sparse), strict=True):
            one.data -= 0.1 * one.grad / (1e-9 + one.grad.abs().max())
            other.data.copy_(one.data)
        for net in (dense, sparse):
            advance(net, (step + 1) / 5)
        with torch.no_grad():
            assert_alike([sparse.eval()(inputs)], [dense.eval()(inputs)])
    assert [layer.codes.tolist() for layer in extract(sparse).layers] == [
        layer.codes.tolist() for layer in extract(dense).layers]


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("method", METHODS)
def test_in_float64_it_is_the_product_with_a_masked_weight(name, method, kernels):
    """Against a plain network whose weights are laid out by hand: each edge's own weight times what its gate says."""
    build, shape = BUILT[name]
    net = attach(build().double(), **PLAIN, method=method, compute="sparse")
    inputs = noise(*shape).double().requires_grad_()
    output, gates = gates_used(net, lambda: net(inputs))
    assert gate_faults(search_of(net), gates) == {}
    plain = copy.deepcopy(net)
    detach(plain)
    weights = []
    for layer, gate in zip(search_of(net).layers, gates, strict=True):
        edge_weights = layer.book.values(layer, gate.codes).double() * gate.factor
        weight = torch.zeros(layer.spec.entries, dtype=torch.float64)
        weight[layer.flat_edges()] = edge_weights.float().double()
        parameter = plain.get_parameter(layer.spec.name)
        parameter.requires_grad_().data.copy_(weight.view(layer.spec.shape))
        weights.append(parameter)
    again = inputs.detach().clone().requires_grad_()
    expected = plain(again)
    output.square().sum().backward()
    expected.square().sum().backward()
    assert output.dtype is torch.float64
    assert_alike([output, inputs.grad], [expected, again.grad], exactly)
    for layer, gate, score, weight in zip(search_of(net).layers, gates, scores(net), weights, strict=True):
        method, dense = search_of(net).method, weight.grad.flatten()[layer.flat_edges()].float()
        own = layer.own if method.scores_an_edge > 1 else method.weights(layer)  # a draw [each, edges] for each score, or one
        assert alike(score.grad, (dense * own).flatten() * method.slope(layer, score.detach(), gate))


class Encoder(nn.Module):
    """A network around a block of torch's that reads weights itself."""

    def __init__(self, block):
        super().__init__()
        self.block, self.last = block, nn.Linear(96, CLASSES)

    def forward(self, x):
        x = x.reshape(len(x), 32, 96)
        attends = isinstance(self.block, nn.MultiheadAttention)
        x = self.block(x, x, x, need_weights=False)[0] if attends else self.block(x)
        return self.last(x.mean(1))


LAWFUL = {
    "linear chain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(),
                                          nn.Linear(30, CLASSES)),
    "small_conv": lambda: models.MODELS["small_conv"](IMAGE, CLASSES, width=1 / 8),
    "vit": lambda: models.MODELS["vit"](IMAGE, CLASSES, width=1 / 32),
    "encoder": lambda: Encoder(nn.TransformerEncoderLayer(96, 2, 40, dropout=0.0, batch_first=True)),
    "attention": lambda: Encoder(nn.MultiheadAttention(96, 2, batch_first=True))}


@pytest.mark.parametrize("method", ["edge_popup", "signed", "iterand", "gates"])
@pytest.mark.parametrize("name", LAWFUL)
def test_the_laws_hold(name, method, kernels):
    net = attach(LAWFUL[name](), er_p=0.3, k=0.4, density="erk", method=method, compute="sparse")
    assert sparse_of(net)
    assert_laws(net, 2, alike)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_law_2_and_3_of_the_product_itself(scope, kernels):
    """The identity as input gives the weight that the product has: selected edges, exactly so many, 0 elsewhere."""
    net = attach(nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 25)), er_p=0.3, k=0.41, scope=scope, compute="sparse")
    given = []
    for place, size in ((0, 30), (1, 20)):
        net[place].register_forward_pre_hook(lambda module, inputs, size=size: (torch.eye(size),))
        net[place].register_forward_hook(lambda module, inputs, output: given.append(output.detach().t()))
    for learning in (True, False):
        given.clear()
        with torch.set_grad_enabled(learning):
            net(torch.ones(1, 30))
        for found, layer, mask in zip(given[-2:], search_of(net).layers, search_of(net).select(), strict=True):
            weight = torch.zeros(layer.spec.entries)
            weight[layer.flat_edges()[mask]] = layer.values[mask]
            assert torch.equal(found.flatten(), weight)
        counts = [int(found.count_nonzero()) for found in given[-2:]]
        wanted = [law_count(0.41, layer.count) for layer in search_of(net).layers]
        assert sum(counts) == sum(wanted) and (scope == "global" or counts == wanted)


@pytest.mark.parametrize("shape", [(12,), (1, 12), (0, 12), (2, 3, 12), (2, 0, 12), (0, 3, 12), (2, 2, 2, 12)])
@pytest.mark.parametrize("build", [Pair, chain])
def test_inputs_of_any_number_of_dimensions(build, shape, kernels):
    by_both(build, lambda net: trained(net, noise(*shape)))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("sparsely", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
def test_inputs_that_are_sparse_tensors_are_multiplied_as_a_dense_weight_would_be(sparsely, kernels):
    """A bag of words, which layers that compute on their edges alone were no use to."""
    words = torch.zeros(7, 12).index_put_((torch.arange(7), torch.arange(7)), torch.tensor(2.0))
    net, dense = (attach(chain(), **PLAIN, compute=compute) for compute in ("sparse", "dense"))
    for one in (net, dense):
        one(sparsely(words)).square().sum().backward()
    assert alike(net(sparsely(words)), dense(words))
    assert all(alike(one.grad, other.grad) for one, other in zip(scores(net), scores(dense), strict=True))


def test_a_filter_of_more_taps_than_16_bits_tell_apart_computes_densely():
    x = noise(1, 1, 1, 65_600)
    for sparse, taps in ((["0.weight"], 65_536), ([], 65_537)):
        dense, net = both(lambda taps=taps: nn.Sequential(nn.Conv2d(1, 2, (1, taps))), er_p=0.01)
        assert sparse_of(net) == sparse
        alike(net(x), dense(x))


def test_an_image_by_itself_is_convolved():
    pytest.importorskip("numba")
    by_both(lambda: nn.Sequential(nn.Conv2d(3, 4, 5)), lambda net: trained(net, noise(3, 9, 9)))

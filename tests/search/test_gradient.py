"""The forward pass and the score gradient against published edge-popup, written densely and independently: scores of the
whole tensor, a sort, a 0/1 mask, a multiplication, autograd straight through. Equal in every bit of float32."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from popup import attach, scores
from popup.search.network import search_of
from popup.search.settings import SearchSettings, first_scores
from popup.source.layers import Layer

CASES = {
    "linear": (lambda: nn.Linear(30, 20), F.linear, (7, 30), {}),
    "linear over a sequence": (lambda: nn.Linear(12, 9), F.linear, (3, 5, 12), {}),
    "conv1d": (lambda: nn.Conv1d(6, 8, 5, padding=2), F.conv1d, (4, 6, 15), {"padding": 2}),
    "conv2d": (lambda: nn.Conv2d(5, 8, 3, stride=2), F.conv2d, (4, 5, 9, 9), {"stride": 2}),
    "conv3d": (lambda: nn.Conv3d(3, 4, (1, 2, 3)), F.conv3d, (2, 3, 4, 5, 6), {}),
    "grouped": (lambda: nn.Conv2d(8, 12, 3, groups=4, dilation=2), F.conv2d, (3, 8, 9, 9), {"groups": 4, "dilation": 2}),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6, bias=False), F.conv2d, (3, 6, 7, 7), {"groups": 6}),
}


class GetSubnet(torch.autograd.Function):
    """Ramanujan et al.'s: 1 at the highest scores and 0 elsewhere; the gradient passes as if it were the identity."""

    @staticmethod
    def forward(ctx, magnitudes, kept):
        order = magnitudes.flatten().sort(stable=True).indices
        mask = torch.zeros(magnitudes.numel())
        mask[order[magnitudes.numel() - kept:]] = 1
        return mask.view_as(magnitudes)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def dense_search(layer, score):
    """The dense scores (0 where there is no edge: below every edge's) and weights W * S_ER of an attached layer."""
    flat, shape = layer.flat_edges(), layer.spec.shape
    dense_scores = torch.zeros(layer.spec.entries).index_copy(0, flat, score.detach()).view(shape).requires_grad_()
    weights = torch.zeros(layer.spec.entries).index_copy(0, flat, layer.values).view(shape)
    return dense_scores, weights


def spread_scores(net, seed):
    """Scores of both signs and no two of equal magnitude, so that a sort without a rule for ties is exact too."""
    for place, score in enumerate(scores(net)):
        order = torch.randperm(score.numel(), generator=torch.Generator().manual_seed(seed + place))
        signs = 1 - 2 * (torch.arange(score.numel()) % 2)
        score.data.copy_((order + 1) * signs / 7.0)


@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
@pytest.mark.parametrize(("p", "k"), [(1.0, 0.5), (1.0, 0.1), (1.0, 1.0), (0.5, 0.5), (0.2, 0.3), (0.05, 1e-6)])
@pytest.mark.parametrize("case", CASES)
def test_output_and_score_gradient_equal_published_edge_popup(case, p, k, weights):
    build, function, shape, options = CASES[case]
    net = attach(build(), er_p=p, k=k, weights=weights, seed=4)
    spread_scores(net, 1)
    (layer,), (score,) = search_of(net).layers, scores(net)
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(shape, generator=generator)
    dense_scores, dense_weights = dense_search(layer, score)

    output = net(inputs)
    bias = None if net.bias is None else torch.zeros(len(net.bias))
    published = function(inputs, dense_weights * GetSubnet.apply(dense_scores.abs(), layer.kept), bias, **options)
    assert torch.equal(output, published)

    cotangent = torch.randn(output.shape, generator=generator)
    output.backward(cotangent)
    published.backward(cotangent)
    assert score.grad.dtype is torch.float32 and score.grad.abs().sum() > 0
    assert torch.equal(score.grad, dense_scores.grad.flatten()[layer.flat_edges()])
    off = torch.ones(layer.spec.entries, dtype=torch.bool).index_fill(0, layer.flat_edges(), False)
    assert dense_scores.grad.flatten()[off].abs().sum() == 0, "the published gradient too is nothing off the edges"


class DenseEdgePopup(nn.Module):
    """A plain layer computed the published way."""

    def __init__(self, module, layer, score):
        super().__init__()
        self.module, self.kept = module, layer.kept
        self.scores, self.weights = dense_search(layer, score)

    def forward(self, inputs):
        weight = self.weights * GetSubnet.apply(self.scores.abs(), self.kept)
        return torch.func.functional_call(self.module, {"weight": weight}, (inputs,))


@pytest.mark.parametrize("p", [1.0, 0.3])
@pytest.mark.parametrize(("name", "widths"), [("mlp", (20, 20)), ("small_conv", (6, 8)), ("resnet18", (4, 8, 8, 8))])
def test_whole_networks_train_alike(name, widths, p):
    """Three steps of SGD with momentum: losses and scores stay equal in every bit."""
    net = attach(models.MODELS[name]((3, 8, 8), 5, widths), er_p=p, k=0.4, seed=1)
    spread_scores(net, 5)
    for score in scores(net):
        score.data.div_(score.numel())
    dense, search = copy.deepcopy(net), search_of(net)
    references = [DenseEdgePopup(nn_module(dense, layer), layer, score)
                  for layer, score in zip(search.layers, scores(net), strict=True)]
    for layer, reference in zip(search.layers, references, strict=True):
        replace(dense, layer.spec.name, reference)
    generator = torch.Generator().manual_seed(0)
    optimisers = [torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
                  for parameters in (scores(net), [reference.scores for reference in references])]
    for _ in range(3):
        inputs, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.randint(5, (6,), generator=generator)
        losses = [F.cross_entropy(network(inputs), labels) for network in (net, dense)]
        assert torch.equal(*losses)
        for loss, optimiser in zip(losses, optimisers, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        for layer, score, reference in zip(search.layers, scores(net), references, strict=True):
            assert torch.equal(score, reference.scores.flatten()[layer.flat_edges()])


def nn_module(net, layer):
    """The plain module of an attached layer in a copy of the network: its weight comes from outside."""
    module = copy.deepcopy(net.get_submodule(layer.spec.name.rpartition(".")[0]))
    module.__class__ = module.__class__.__mro__[1]
    del module.parametrizations
    module.weight = nn.Parameter(torch.zeros(layer.spec.shape), requires_grad=False)
    return module


def replace(net, name, module):
    path, _, attribute = name.rpartition(".")[0].rpartition(".")
    setattr(net.get_submodule(path), attribute, module)


def test_a_score_of_zero_has_no_slope_and_a_kept_edge_may_have_one():
    net = attach(nn.Linear(4, 4), er_p=1.0, k=0.5)
    (score,) = scores(net)
    score.data.copy_(torch.tensor([0.0, -0.0] * 8))
    net(torch.ones(2, 4)).sum().backward()
    assert score.grad.tolist() == [0.0] * 16
    assert (net.weight != 0).flatten().tolist() == [True] * 8 + [False] * 8


def test_only_the_scores_have_gradients_and_the_input_has_the_tickets():
    net = attach(nn.Linear(6, 3), er_p=0.5, k=0.5)
    inputs = torch.randn(2, 6, requires_grad=True)
    net(inputs).sum().backward()
    assert torch.equal(inputs.grad, net.weight.detach().sum(0).expand(2, 6))
    assert [name for name, parameter in net.named_parameters() if parameter.grad is not None] == [
        "parametrizations.weight.original"]


def test_channels_last_gives_the_same_gradient_places():
    """The gradient of a channels-last convolution has other strides: it must still be read in the weight's own order."""
    inputs = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, last = (attach(nn.Conv2d(4, 6, 3), er_p=0.4, k=0.5) for _ in range(2))
    plain(inputs).square().sum().backward()
    last(inputs.to(memory_format=torch.channels_last)).square().sum().backward()
    assert torch.allclose(scores(plain)[0].grad, scores(last)[0].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_another_dtype_keep_float32_scores(dtype):
    net = attach(nn.Linear(8, 6).to(dtype), er_p=0.5, k=0.5)
    output = net(torch.ones(2, 8, dtype=dtype))
    output.sum().backward()
    assert output.dtype is dtype and net.weight.dtype is dtype
    assert scores(net)[0].dtype is torch.float32 and scores(net)[0].grad.dtype is torch.float32


def test_first_scores_are_uniform_in_their_bound():
    layer = Layer("a.weight", (100, 25))
    values = first_scores(SearchSettings(score_scale=2.0), 0, layer, 2500, 0.5)
    assert values.dtype == "float32" and abs(values).max() <= 2 / 5
    assert abs(values).max() > 0.999 * 2 / 5 and abs(values.mean()) < 0.02
    assert first_scores(SearchSettings(), 0, layer, 7, 0.5).tolist() == (values[:7] / 2).tolist()
    assert first_scores(SearchSettings(), 1, layer, 7, 0.5).tolist() != first_scores(SearchSettings(), 0, layer, 7, 0.5).tolist()


def test_a_gradient_that_two_layers_share_is_written_to_by_neither():
    """At p = 1 a layer's gradient is autograd's own tensor, here of both layers."""
    first, second = (attach(nn.Linear(5, 4), er_p=1.0, k=0.5, seed=seed) for seed in (1, 2))
    factor = torch.randn(4, 5)
    ((first.weight + second.weight) * factor).sum().backward()
    for net in (first, second):
        layer, score = search_of(net).layers[0], scores(net)[0]
        assert torch.equal(score.grad, factor.flatten() * layer.values * score.detach().sign())

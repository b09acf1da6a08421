"""Diagnostics on graphs small enough to count by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
import popup
from popup.lab.training.diagnostics import diagnose, effective_edges
from popup.lab.training.series import in_series
from popup.search.network import search_of
from popup.source.layers import find_layers


def chain():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_edges_count_only_on_a_path_from_input_to_output():
    first = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]).double()  # neuron 1 has no input
    second = torch.tensor([[1.0, 1.0, 0.0]]).double()                     # neuron 2 has no output
    assert effective_edges(chain().double(), ["0.weight", "2.weight"], [first, second], (2,)) == [2, 1]


def test_a_cut_network_has_no_effective_edge():
    masks = [torch.ones(3, 2).double(), torch.zeros(1, 3).double()]
    assert effective_edges(chain().double(), ["0.weight", "2.weight"], masks, (2,)) == [0, 0]


def test_everything_counts_in_a_dense_network_with_norms_pools_and_shortcuts():
    net = popup.attach(models.MODELS["resnet18"]((1, 16, 16), 4, width=0.0625), er_p=1.0, k=1.0)
    found = diagnose(popup.extract(net), models.MODELS["resnet18"]((1, 16, 16), 4, width=0.0625), (1, 16, 16))
    counts = [layer.count for layer in search_of(net).layers]
    assert found["er"] == found["ticket"] and found["er"]["dead"] == [0] * len(counts)
    assert found["ticket"]["effective"] == counts


def test_dead_neurons_are_counted_by_layer_in_both_masks():
    net = popup.attach(models.MODELS["mlp"]((1, 2, 2), 3, (40,)), er_p=0.3, k=0.4, seed=1)
    ticket = popup.extract(net)
    found = diagnose(ticket, models.MODELS["mlp"]((1, 2, 2), 3, (40,)), (1, 2, 2))
    weight = dict(popup.merge(net).named_parameters())["1.weight"]
    assert found["ticket"]["dead"][0] == int((weight != 0).sum(1).eq(0).sum()) > found["er"]["dead"][0]


def test_networks_that_mix_signs_have_no_effective_count():
    net = popup.attach(models.MODELS["vit"]((1, 8, 8), 3, width=0.25), er_p=0.5, k=0.5)
    found = diagnose(popup.extract(net), models.MODELS["vit"]((1, 8, 8), 3, width=0.25), (1, 8, 8))
    assert found["ticket"]["effective"] is None and len(found["ticket"]["dead"]) == len(popup.densities(net))


def reachable(masks):
    """Of each mask [out, in] the ones that lie on a path, by walking the graph from both ends."""
    forwards, backwards = [torch.ones(masks[0].shape[1])], [torch.ones(len(masks[-1]))]
    for mask in masks:
        forwards.append((mask.float() @ forwards[-1] > 0).float())
    for mask in masks[::-1]:
        backwards.insert(0, (mask.float().T @ backwards[0] > 0).float())
    return [int((mask * backwards[place + 1][:, None] * forwards[place]).sum()) for place, mask in enumerate(masks)]


class Bounded(nn.Module):
    def forward(self, inputs):
        return F.hardtanh(inputs)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(30, 30)

    def forward(self, inputs):
        return inputs * F.relu(self.gate(inputs))


def deep(*activations):
    first, second = activations if len(activations) == 2 else activations * 2  # one is one module in two places
    return nn.Sequential(nn.Linear(20, 30), first, nn.Linear(30, 30), second, nn.Linear(30, 10)).double()


def thin(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(shape, generator=generator) < 0.08).double() for shape in ((30, 20), (30, 30), (10, 30))]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
                                        nn.Softsign, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, nn.LeakyReLU, nn.ELU])
@pytest.mark.parametrize("shared", [False, True])
def test_edges_on_a_path_are_those_that_can_be_walked_whatever_the_activation(activation, shared):
    masks, net = thin(), deep(activation()) if shared else deep(activation(), activation())
    found = effective_edges(net, ["0.weight", "2.weight", "4.weight"], masks, (20,))
    assert found == reachable(masks) and 0 < sum(found) < sum(int(mask.sum()) for mask in masks)


@pytest.mark.parametrize("module", [Bounded, Gated])
def test_outputs_that_are_no_sums_over_paths_have_no_effective_count(module):
    assert effective_edges(deep(module(), nn.ReLU()), ["0.weight", "2.weight", "4.weight"],
                           [torch.ones_like(mask) for mask in thin()], (20,)) is None


def test_mobile_nets_count_every_edge_of_a_dense_one_or_none_where_they_multiply():
    """At 64 pixels no filter is so late that it sees padding only."""
    for name, counted in (("mobilenet_v2", True), ("mobilenet_v3_small", False)):
        build = models.resolve(f"torchvision:{name}")
        net = popup.attach(build((3, 64, 64), 4), er_p=1.0, k=1.0)
        found = diagnose(popup.extract(net), build((3, 64, 64), 4), (3, 64, 64))["ticket"]["effective"]
        assert found == ([layer.count for layer in search_of(net).layers] if counted else None)


class Around(nn.Module):
    """Layers with something between them that is no module."""

    def __init__(self, between):
        super().__init__()
        self.one, self.two, self.three, self.between = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3), between

    def forward(self, inputs):
        return self.three(F.relu(self.between(F.relu(self.one(inputs)), self.two)))


IN_SERIES = {"alone": lambda x, layer: layer(x), "leaky": lambda x, layer: F.leaky_relu(layer(x), 0.1)}
NOT = {"shortcut": lambda x, layer: x + layer(x), "normalised": lambda x, layer: layer(F.normalize(x)),
       "layer norm": lambda x, layer: layer(F.layer_norm(x, x.shape[1:])), "bent": lambda x, layer: torch.tanh(layer(x)),
       "twice": lambda x, layer: layer(layer(x)), "a product": lambda x, layer: x * layer(x), "not used": lambda x, layer: x,
       "constant": lambda x, layer: layer(x) + 1}


@pytest.mark.parametrize("between", [*IN_SERIES, *NOT])
def test_layers_follow_one_another_where_twice_the_weights_give_outputs_twice_as_large_for_each(between):
    net = Around({**IN_SERIES, **NOT}[between]).double().eval()
    assert in_series(net, [layer.name for layer in find_layers(net)], (4,)) == (between in IN_SERIES)


@pytest.mark.parametrize(("name", "series"), [("lenet5", True), ("conv2", True), ("resnet20", False), ("vit", False)])
def test_a_record_says_whether_layers_follow_one_another(name, series):
    build = models.MODELS[name]
    net = popup.attach(build((1, 28, 28), 4, width=0.25), er_p=0.5, k=0.5, bias="search")
    assert diagnose(popup.extract(net), build((1, 28, 28), 4, width=0.25), (1, 28, 28))["series"] is series

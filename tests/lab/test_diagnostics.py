"""Diagnostics on graphs small enough to count by hand."""

import torch
from torch import nn

import models
import popup
from popup.lab.training.diagnostics import diagnose, effective_edges
from popup.search.network import search_of


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

"""SNIP and SynFlow against their papers' equations on small networks, in numpy; counts, ties, layers that would be lost."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup.errors import UsageError
from popup.source import Recipe, draw_layer, find_layers, snip, synflow
from popup.source.masks import COMPUTED

RECIPE = Recipe(er_p=0.3, weights="kaiming_normal", seed=4)


def two_layers():
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def dense_weights(net, recipe):
    """The seed's dense weights of each layer, scaled by gain / sqrt(fan_in), float64."""
    found = []
    for layer in find_layers(net):
        source = draw_layer(Recipe(er_p=1.0, k=1.0, weights=recipe.weights, gain=recipe.gain, seed=recipe.seed), layer, 1.0)
        found.append(source.values.astype(np.float64).reshape(layer.shape))
    return found


def highest(saliencies, count):
    """The `count` highest values over all arrays as masks; a stable sort gives ties to the earlier."""
    joined = np.concatenate([saliency.ravel() for saliency in saliencies])
    mask = np.zeros(len(joined), dtype=bool)
    mask[np.argsort(-joined, kind="stable")[:count]] = True
    ends = np.cumsum([saliency.size for saliency in saliencies])[:-1]
    return [part.reshape(saliency.shape) for part, saliency in zip(np.split(mask, ends), saliencies, strict=True)]


def batch(n=70):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)


@pytest.mark.parametrize("weights", ["kaiming_normal", "signed_constant"])
def test_snip_keeps_the_largest_sensitivities_of_the_loss_to_multipliers(weights):
    recipe, (inputs, labels) = Recipe(er_p=0.3, weights=weights, seed=4), batch()
    first, second = dense_weights(two_layers(), recipe)
    x, y = inputs.numpy().astype(np.float64), labels.numpy()
    hidden = np.maximum(x @ first.T, 0)
    logits = hidden @ second.T
    chance = np.exp(logits - logits.max(1, keepdims=True))
    error = (chance / chance.sum(1, keepdims=True) - np.eye(3)[y]) / len(x)      # dL / d logits
    to_second, to_first = error.T @ hidden, ((error @ second) * (hidden > 0)).T @ x
    expected = highest([np.abs(first * to_first), np.abs(second * to_second)], 17)  # floor(.3 * 56 + .5)
    found = snip(two_layers(), recipe, inputs, labels)
    assert list(found) == ["0.weight", "2.weight"]
    assert all(map(np.array_equal, found.values(), expected)) and 0 < expected[0].sum() < 17


def test_synflow_keeps_what_most_flow_passes_computed_anew_in_a_hundred_rounds():
    sizes = [np.abs(weight) for weight in dense_weights(two_layers(), RECIPE)]
    masks = [np.ones(size.shape, dtype=bool) for size in sizes]
    for turn in range(1, 101):
        first, second = (size * mask for size, mask in zip(sizes, masks, strict=True))
        into, out = first @ np.ones(5), np.ones(3) @ second                       # flow through each hidden neuron
        saliencies = [np.where(masks[0], first * out[:, None], -1), np.where(masks[1], second * into, -1)]
        masks = highest(saliencies, int(0.3 ** (turn / 100) * 56 + 0.5))
    found = synflow(two_layers(), RECIPE, (5,))
    assert all(map(np.array_equal, found.values(), masks)) and sum(map(np.sum, masks)) == 17
    once = highest([sizes[0] * sizes[1].sum(0)[:, None], sizes[1] * sizes[0].sum(1)], 17)
    assert not all(map(np.array_equal, masks, once))  # or the rounds would not be tested


def convolutions():
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3),
                         nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(32, 4))


def masks_of(kind, net, recipe):
    images, labels = torch.randn(33, 2, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(33) % 4
    return snip(net, recipe, images, labels) if kind == "snip" else synflow(net, recipe, images.shape[1:])


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("p", [0.006, 0.1, 0.29, 1.0])
def test_exactly_the_fraction_p_of_a_network_with_norms_and_one_edge_a_layer_at_least(kind, p):
    net = convolutions()
    masks = masks_of(kind, net, Recipe(er_p=p, weights="kaiming_normal"))
    assert sum(int(mask.sum()) for mask in masks.values()) == int(p * 668 + 0.5)
    assert {name: mask.shape for name, mask in masks.items()} == {layer.name: layer.shape for layer in find_layers(net)}
    assert all(mask.dtype == bool and mask.any() for mask in masks.values())


@pytest.mark.parametrize("kind", COMPUTED)
def test_the_network_is_unchanged_and_the_same_seed_gives_the_same_mask_whatever_torch_has_drawn(kind):
    net = convolutions()
    before = copy.deepcopy(net.state_dict())
    first = masks_of(kind, net, RECIPE)
    torch.rand(3)
    second, other = masks_of(kind, convolutions(), RECIPE), masks_of(kind, net, Recipe(er_p=0.3, weights="kaiming_normal"))
    assert all(map(np.array_equal, first.values(), second.values())) and net.training
    assert not all(map(np.array_equal, first.values(), other.values()))
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_layer_that_the_ranking_would_empty_keeps_its_best_edge(kind):
    net = two_layers()
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(35.0).view(7, 5) + 1)
        net[2].weight.fill_(1e-9).view(-1)[9] = 2e-9
    inputs = torch.eye(5).repeat(2, 1)
    recipe = Recipe(er_p=0.1, weights="given")
    masks = snip(net, recipe, inputs, torch.arange(10) % 3) if kind == "snip" else synflow(net, recipe, (5,))
    assert all(mask.any() for mask in masks.values()) and sum(int(mask.sum()) for mask in masks.values()) == 6


def test_ties_go_to_the_earlier_layer_and_the_lower_index():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer in net:
        nn.init.constant_(layer.weight, 1.0)
    masks = synflow(net, Recipe(er_p=31 / 32, weights="given"), (4,))
    assert masks["0.weight"].all() and np.flatnonzero(~masks["1.weight"]).tolist() == [15]


def test_too_few_weights_for_the_layers_and_saliencies_that_overflow_are_refused():
    with pytest.raises(UsageError, match="is 1 of 56 weights, and each of the 2 layers keeps one: raise er_p"):
        synflow(two_layers(), Recipe(er_p=0.02, weights="kaiming_normal"), (5,))
    deep = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)))
    with pytest.raises(UsageError, match=r"saliencies of 0\.weight are not finite: use a smaller gain"):
        synflow(deep, Recipe(er_p=0.5, weights="kaiming_normal", gain=1e30), (3,))


def test_a_part_of_the_network_that_is_not_used_has_no_saliency():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            return self.used(x)

    masks = snip(Spare(), RECIPE, *batch())
    assert int(masks["used.weight"].sum()) == 8 and np.flatnonzero(masks["spare.weight"]).tolist() == [0]


def test_synflow_looks_through_norms_and_not_through_blocks_with_norm_in_their_name():
    class MixNorm(nn.Sequential):
        pass

    found = []
    for kind in (nn.Sequential, MixNorm):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), kind(nn.LayerNorm(9), nn.Linear(9, 7)), nn.Linear(7, 3))
        found.append(synflow(net, RECIPE, (5,)))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_synflow_passes_the_upper_bound_of_relu6_and_refuses_activations_that_stop_the_flow():
    def net(activation):
        return nn.Sequential(nn.Linear(5, 7), activation, nn.Linear(7, 3))

    given = Recipe(er_p=0.3, weights="kaiming_normal", gain=50.0, seed=4)  # so that activations are far above 6
    plain, bounded = synflow(net(nn.ReLU()), given, (5,)), synflow(net(nn.ReLU6(inplace=True)), given, (5,))
    assert all(map(np.array_equal, plain.values(), bounded.values())) and plain["0.weight"].sum() > 1
    with pytest.raises(UsageError, match=r"no synaptic flow depends on 0\.weight"):
        synflow(net(nn.Sigmoid()), given, (5,))


def test_synflow_refuses_weights_of_one_size():
    with pytest.raises(UsageError, match="have one size: use weights 'kaiming_normal'"):
        synflow(two_layers(), Recipe(er_p=0.3), (5,))


@pytest.mark.parametrize(("inputs", "labels", "why"), [
    (torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), "there are 0 inputs and 0 labels"),
    (torch.zeros(3, 5), torch.zeros(2, dtype=torch.int64), "there are 3 inputs and 2 labels"),
    (torch.zeros(3, 5), torch.tensor([0, 2, 3]), "labels go from 0 to 3 and the network has 3 classes"),
    (torch.zeros(3, 5), torch.tensor([0, 2, -1]), "labels go from -1 to 2 and the network has 3 classes"),
    (torch.zeros(3, 5), torch.tensor([0.0, 2, 1]), "labels are of torch.float32"),
    (torch.zeros(3, 5), [0, 2, 1], "and a list: SNIP"),
    (torch.zeros(3, 5), torch.eye(3).long(), r"labels \[3, 3\]"), (torch.zeros(3), torch.tensor(1), "the batch is")])
def test_snip_refuses_a_batch_that_is_none(inputs, labels, why):
    with pytest.raises(UsageError, match=why):
        snip(two_layers(), RECIPE, inputs, labels)


def test_snip_normalises_by_the_statistics_of_the_batch():
    """Of parts of 32 images: here of one. With fresh running statistics another mask would be found."""
    def build():
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))

    inputs, labels = batch(20)
    inputs = 3 * inputs + torch.arange(5)
    first, second = (torch.from_numpy(weight).requires_grad_() for weight in dense_weights(build(), RECIPE))
    expected = []
    for training in (True, False):
        hidden = F.batch_norm(inputs.double() @ first.T, torch.zeros(7).double(), torch.ones(7).double(), training=training)
        loss = F.cross_entropy(hidden.relu() @ second.T, labels)
        gradients = torch.autograd.grad(loss, (first, second))
        expected.append(highest([(weight * gradient).abs().detach().numpy()
                                 for weight, gradient in zip((first, second), gradients, strict=True)], 17))
    found = snip(build(), RECIPE, inputs, labels).values()
    assert all(map(np.array_equal, found, expected[0])) and not all(map(np.array_equal, found, expected[1]))

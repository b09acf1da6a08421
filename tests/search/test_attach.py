"""attach on networks of every kind: what is frozen, what learns, what its rows say."""

import copy
import inspect
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from popup import Recipe, UsageError, attach, densities, detach, extract, merge, scores
from popup.search import SearchSettings
from popup.search.network import search_of
from popup.source.densities import total_density
from popup.source.layers import find_layers
from tests.search.attached import images, plain, small, train

NORMS = {
    "batch 1d": (nn.BatchNorm1d(6), (4, 6)), "batch 2d": (nn.BatchNorm2d(6), (4, 6, 3, 3)),
    "batch 3d": (nn.BatchNorm3d(6), (4, 6, 2, 2, 2)), "batch without statistics":
    (nn.BatchNorm1d(6, track_running_stats=False), (4, 6)), "synchronised": (nn.SyncBatchNorm(6), None),
    "layer": (nn.LayerNorm(6), (4, 6)), "layer without bias": (nn.LayerNorm(6, bias=False), (4, 6)),
    "root mean square": (nn.RMSNorm(6), (4, 6)), "group": (nn.GroupNorm(2, 6), (4, 6, 3)),
    "instance": (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (4, 6, 3, 3)),
    "without affine": (nn.BatchNorm1d(6, affine=False), (4, 6)),
}


class Attention(nn.Module):
    """Self-attention with a class token, a norm and a head."""

    def __init__(self, **options):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0)))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.norm(x + self.attention(x, x, x, need_weights=False)[0])[:, 0])


@pytest.mark.parametrize("kind", NORMS)
def test_norms_of_every_kind_lose_their_affine_and_start_with_fresh_statistics(kind):
    norm, shape = copy.deepcopy(NORMS[kind])
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    if shape:
        norm(torch.randn(shape) + 5)
    net = attach(nn.Sequential(nn.Linear(6, 6), norm), er_p=1.0)
    assert norm.weight is None or (norm.weight == 1).all()
    assert getattr(norm, "bias", None) is None or (norm.bias == 0).all()
    assert not any(parameter.requires_grad for parameter in norm.parameters())
    if getattr(norm, "running_mean", None) is not None:
        assert (norm.running_mean == 0).all() and (norm.running_var == 1).all() and norm.num_batches_tracked == 0
    assert [parameter for parameter in net.parameters() if parameter.requires_grad] == scores(net)


def test_biases_are_zero_and_only_scores_learn():
    net = small()
    biases = [parameter for name, parameter in net.named_parameters() if name.endswith("bias")]
    assert len(biases) == 5 and all((bias == 0).all() for bias in biases)
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert len(learning) == len(scores(net)) == 3
    assert all(a is b and a.dim() == 1 and a.dtype is torch.float32 for a, b in zip(learning, scores(net), strict=True))
    assert [len(score) for score in scores(net)] == [row.edges for row in densities(net)]


def test_attach_forgets_the_weights_that_were_there():
    first, second = plain(), plain()
    assert not torch.equal(first[0].weight, second[0].weight)
    assert torch.equal(attach(first, er_p=0.5)(images()), attach(second, er_p=0.5)(images()))


def test_other_parameters_stay_as_they_are_but_frozen():
    net = Attention()
    token = net.token.clone()
    attach(net, er_p=0.5)
    assert torch.equal(net.token, token) and not net.token.requires_grad


def test_the_random_state_of_torch_and_numpy_is_neither_used_nor_moved():
    torch.manual_seed(1)
    net = plain()
    state = torch.get_rng_state()
    attach(net, er_p=0.5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{}, {"kdim": 8, "vdim": 8}, {"bias": False}, {"add_bias_kv": True}])
def test_attention_packed_weights_are_layers_that_learn(options):
    net = attach(Attention(**options), er_p=0.5, k=0.5)
    inputs = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))
    before = [score.detach().clone() for score in scores(net)]
    train(net, 3, inputs)
    assert {row.name for row in densities(net)} >= {"attention.out_proj.weight", "head.weight", "attention.in_proj_weight"}
    assert not any(map(torch.equal, before, scores(net)))
    assert [row.kept for row in densities(net)] == [layer.kept for layer in search_of(net).layers]
    for training in (True, False):
        net.train(training)
        with torch.no_grad():
            assert torch.equal(net(inputs), merge(net)(inputs))


def test_separate_projections_of_attention():
    module = attach(nn.MultiheadAttention(4, 2, kdim=3, vdim=5), er_p=0.8, k=0.5)
    query, key, value = torch.randn(2, 1, 4), torch.randn(3, 1, 3), torch.randn(3, 1, 5)
    output = module(query, key, value)[0]
    output.sum().backward()
    assert len(scores(module)) == 4 and all(score.grad is not None for score in scores(module))
    assert torch.equal(merge(module)(query, key, value)[0], output)
    detach(module)
    assert type(module) is nn.MultiheadAttention and torch.equal(module(query, key, value)[0], output)


@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_layer_and_its_fast_path(training):
    net = attach(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), er_p=0.5, k=0.5).train(training)
    inputs = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(net(inputs), merge(net)(inputs))


def test_a_recipe_is_what_its_fields_are_as_keywords(tmp_path):
    fields = {"er_p": 0.3, "k": 0.25, "seed": 7, "density": "erk", "weights": "kaiming_normal", "gain": 1.1, "only": ("3",)}
    net = plain()
    one = extract(attach(copy.deepcopy(net), **fields, method="signed"))
    other = extract(attach(net, Recipe(**fields), SearchSettings(method="signed")))
    assert one.save(tmp_path / "one").read_bytes() == other.save(tmp_path / "other").read_bytes()


def test_a_recipe_with_masks_has_their_density():
    masks = {layer.name: np.arange(layer.entries).reshape(layer.shape) % 3 == 0 for layer in find_layers(plain())}
    net = attach(plain(), Recipe(mask="given", k=0.25), masks=masks)
    wanted = sum(map(np.count_nonzero, masks.values())) / sum(mask.size for mask in masks.values())
    assert search_of(net).recipe == Recipe(mask="given", k=0.25, er_p=wanted)


def test_defaults_of_keywords_are_those_of_the_dataclasses():
    usual = {**vars(SearchSettings()), **vars(Recipe())}
    asked = inspect.signature(attach).parameters
    assert vars(Recipe()).keys() <= asked.keys()
    assert {name: asked[name].default for name in usual if name in asked} == {
        name: value for name, value in usual.items() if name in asked} | {"er_p": None}


def test_rows_say_what_is_there():
    net = attach(plain(), density={"0.weight": 1.0, "3.weight": 0.25, "6.weight": 0.1})
    rows = densities(net)
    assert [row.name for row in rows] == ["0.weight", "3.weight", "6.weight"]
    assert [row.entries for row in rows] == [6 * 3 * 9, 8 * 3 * 9, 5 * 128]
    assert [row.p_l for row in rows] == [1.0, 0.25, 0.1] and rows[0].edges == rows[0].entries
    for row, module in zip(rows, (net[0], net[3], net[6]), strict=True):
        assert row.kept == int(module.weight.count_nonzero()) and row.density == row.kept / row.entries
    assert search_of(net).recipe.er_p == pytest.approx(total_density(find_layers(plain()), [1.0, 0.25, 0.1]))


def test_a_mapping_at_equal_densities_is_uniform():
    mapped = attach(plain(), density=dict.fromkeys(["0.weight", "3.weight", "6.weight"], 0.3), k=0.5)
    assert torch.equal(mapped(images()), attach(plain(), er_p=0.3, k=0.5)(images()))


@pytest.mark.parametrize("k", [1e-6, 0.1, 0.5, 0.99, 1.0])
def test_a_global_scope_keeps_exactly_the_sum_and_one_edge_a_layer(k):
    net, layerwise = small(scope="global", k=k), small(k=k)
    with torch.no_grad():
        scores(net)[0].mul_(1e6)
        scores(net)[2].zero_()
    rows = densities(net)
    assert sum(row.kept for row in rows) == sum(row.kept for row in densities(layerwise))
    assert rows[0].kept == min(rows[0].edges, sum(row.kept for row in rows) - 2) and min(row.kept for row in rows) >= 1
    assert [int(net[place].weight.count_nonzero()) for place in (0, 3, 6)] == [row.kept for row in rows]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("mask", ["bernoulli", "exact"])
def test_a_layer_in_which_no_edge_was_drawn(mask, scope):
    options = {"er_p": 0.01, "k": 0.5, "scope": scope, "mask": mask}
    nets = (attach(nn.Sequential(nn.Linear(200, 4), nn.ReLU(), nn.Linear(4, 3)), **options, seed=seed) for seed in range(99))
    net = next(net for net in nets if densities(net)[1].edges == 0)
    train(net, 2, torch.ones(3, 200))
    row = densities(net)[1]
    assert (row.edges, row.kept, row.density) == (0, 0, 0.0) and scores(net)[1].shape == (0,)
    assert densities(net)[0].kept >= 1 and (net[2].weight == 0).all()
    assert torch.equal(merge(net)(torch.ones(1, 200)), net(torch.ones(1, 200)))


def test_large_weights_that_have_no_scores_are_named():
    with pytest.warns(UserWarning, match=r"^3\d\.\d% of the weights stay dense, .* 1\.weight_hh_l0 \(256\), 2\.weight \(36\);"):
        attach(nn.Sequential(nn.Conv2d(3, 18, 3), nn.RNN(1, 16, batch_first=True), nn.Embedding(9, 4)), er_p=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40), nn.Embedding(2, 3)), er_p=0.5)


def test_numbers_of_numpy_are_numbers_and_a_method_is_not_given_as_search():
    net = attach(nn.Sequential(nn.Linear(4, 8)), er_p=np.float32(0.5), k=np.float64(0.5), seed=np.int64(3))
    same = attach(nn.Sequential(nn.Linear(4, 8)), er_p=0.5, k=0.5, seed=3)
    assert search_of(net).recipe == search_of(same).recipe and type(search_of(net).recipe.seed) is int
    with pytest.raises(UsageError, match=r"search is 'edge_popup': pass popup.SearchSettings\(...\), or its fields as keywords"):
        attach(nn.Sequential(nn.Linear(4, 8)), er_p=0.5, search="edge_popup")


class Projected(nn.Module):
    """Matrices with the names of vectors."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 32)
        self.gamma_projection, self.position_bias = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(2, 8, 8))
        self.out_bias, self.gamma = nn.Parameter(torch.randn(8)), nn.Parameter(torch.full((8, 1, 1), 1e-6))


def test_matrices_stay_as_they_are_whatever_they_are_called():
    net = Projected()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    with pytest.warns(UserWarning, match=r"^42\.9% of the weights stay dense, as they are now.*position_bias.*gamma_projection"):
        attach(net, er_p=0.5)
    assert torch.equal(net.gamma_projection, before["gamma_projection"])
    assert torch.equal(net.position_bias, before["position_bias"])
    assert not net.out_bias.any() and (net.gamma == 1).all()


def test_every_vector_whose_name_ends_in_bias_is_zero():
    attention = nn.MultiheadAttention(8, 2)
    nn.init.normal_(attention.in_proj_bias)
    attach(attention, er_p=0.5)
    assert not attention.in_proj_bias.any()


def test_numbers_of_numpy_and_sparse_masks_are_taken():
    given = {"0.weight": np.float32(0.5), "1.weight": np.float64(1)}
    net = attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), density=given)
    assert [row.p_l for row in densities(net)] == [0.5, 1.0]
    net = attach(nn.Linear(6, 8), mask="given", masks={"weight": torch.eye(8, 6, dtype=torch.bool).to_sparse()})
    assert [row.edges for row in densities(net)] == [6]

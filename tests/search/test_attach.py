"""attach, detach and merge on networks of every kind: what is frozen, what is refused unchanged, what is restored."""

import copy
import inspect
import io
import warnings
from math import inf, nan

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import popup
from popup import Recipe, UsageError, attach, densities, detach, extract, merge, scores
from popup.search import SearchSettings
from popup.search.network import is_attached, search_of
from popup.search.search import Search
from popup.source.densities import total_density
from popup.source.layers import find_layers

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


def small(**options):
    """A convolutional network with norms, attached."""
    return attach(plain(), **{"er_p": 0.5, "k": 0.5, **options})


def plain():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.GroupNorm(2, 8),
                         nn.Flatten(), nn.Linear(8 * 16, 5))


def images(count=4):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def train(net, steps=2, inputs=None):
    """Steps of SGD on a fixed batch."""
    inputs = images() if inputs is None else inputs
    optimiser = torch.optim.SGD(scores(net), lr=0.5, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        output = net(inputs)
        nn.functional.cross_entropy(output, torch.arange(len(output)) % output.shape[1]).backward()
        optimiser.step()
    return net


def snapshot(net):
    """All that a failing attach might have changed."""
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()
             if not isinstance(tensor, nn.parameter.UninitializedTensorMixin)}
    return (state, [(name, id(parameter), parameter.requires_grad) for name, parameter in net.named_parameters()],
            [type(module) for module in net.modules()], len(net._forward_hooks), len(net._forward_pre_hooks), set(vars(net)))


def assert_same(before, after):
    assert before[1:] == after[1:] and before[0].keys() == after[0].keys()
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())


# --- what is frozen

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


# --- attention

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


# --- refusals

def lazily():
    return nn.Sequential(nn.Linear(3, 3), nn.LazyBatchNorm1d())


def tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Embedding(3, 3))
    net[2].weight = net[0].weight
    nn.init.normal_(net[1].weight)
    return net


FAILING = {
    "tied": (tied, {"er_p": 0.5}, "2.weight is the same tensor as 0.weight, which alone"),
    "lazy norm": (lazily, {"er_p": 0.5}, "lazy"),
    "no weight": (lambda: nn.Sequential(nn.BatchNorm1d(3)), {"er_p": 0.5}, "no weight to mask"),
    "attached already": (small, {"er_p": 0.5}, "attached already"),
    "a part is attached": (lambda: nn.Sequential(small(), nn.Linear(5, 2)), {"er_p": 0.5}, "^0 is attached already, and its"),
    "no er_p": (plain, {}, "er_p is None"),
    "er_p and a mapping": (plain, {"er_p": 0.5, "density": {"0.weight": 1}}, "pass er_p with a density's name"),
    "er_p zero": (plain, {"er_p": 0}, "er_p is 0"), "er_p above 1": (plain, {"er_p": 1.5}, "er_p is 1.5"),
    "er_p nan": (plain, {"er_p": nan}, "er_p is nan"), "er_p a word": (plain, {"er_p": "a"}, "er_p is 'a'"),
    "er_p true": (plain, {"er_p": True}, "er_p is True"), "k zero": (plain, {"er_p": 1, "k": 0.0}, "k is 0.0"),
    "k above 1": (plain, {"er_p": 1, "k": 2}, "k is 2"), "density": (plain, {"er_p": 1, "density": "erg"}, "mean 'erk'"),
    "density given": (plain, {"er_p": 1, "density": "given"}, "mapping"),
    "mapping short": (plain, {"density": {"0.weight": 0.5}}, "no p_l for '3.weight'"),
    "mapping unknown": (plain, {"density": {"0.wight": 0.5}}, "mean '0.weight'"),
    "mask": (plain, {"er_p": 1, "mask": "x"}, "unknown mask"),
    "method": (plain, {"er_p": 1, "method": "popup"}, "edge_popup"),
    "no method": (plain, {"er_p": 1, "method": "built"}, "'built' marks tickets .* edge_popup"),
    "weights": (plain, {"er_p": 1, "weights": "normal"}, "kaiming_normal"),
    "scale": (plain, {"er_p": 1, "scale": "x"}, "scale"),
    "scope": (plain, {"er_p": 1, "scope": "globl"}, "mean 'global'"), "gain": (plain, {"er_p": 1, "gain": -1}, "gain is -1"),
    "gain too large": (plain, {"er_p": 1, "gain": 1e200}, "gain is 1e"),
    "seed": (plain, {"er_p": 1, "seed": -3}, "seed is -3"),
    "score scale": (plain, {"er_p": 1, "score_scale": inf}, "score_scale is inf"),
    "recipe a number": (plain, {"recipe": 0.5}, r"recipe is 0.5: pass popup.Recipe\(...\)"),
    "recipe and keywords": (plain, {"recipe": Recipe(), "k": 0.25}, "recipe is given beside keywords"),
    "recipe and er_p": (plain, {"recipe": Recipe(), "er_p": 0.2}, "recipe is given beside keywords"),
    "recipe without masks": (plain, {"recipe": Recipe(mask="given")}, "pass mask='given' with masks"),
    "recipe without densities": (plain, {"recipe": Recipe(density="given")}, "mapping"),
    "search a word": (plain, {"er_p": 1, "search": "signed"}, r"search is 'signed': pass popup.SearchSettings\(...\)"),
    "search and keywords": (plain, {"er_p": 1, "search": SearchSettings(), "scope": "global"}, "search is given beside keywords"),
    "no edge anywhere": (lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), {"er_p": 1e-9}, "no edge in any"),
}


@pytest.mark.filterwarnings("ignore:.*lazy:UserWarning", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("case", FAILING)
def test_a_failing_attach_says_why_in_one_line_and_changes_nothing(case):
    build, options, words = FAILING[case]
    net = build()
    before = snapshot(net)
    with pytest.raises(UsageError, match=words) as error:
        attach(net, **options)
    assert "\n" not in str(error.value)
    assert_same(before, snapshot(net))


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


@pytest.mark.parametrize("ask", [scores, densities, detach, merge, extract])
def test_a_network_that_is_not_attached_is_told_so(ask):
    with pytest.raises(UsageError, match=r"Sequential is not attached: call popup\.attach"):
        ask(plain())


def test_a_part_of_an_attached_network_is_not_itself_attached():
    with pytest.raises(UsageError, match="Conv2d is not attached"):
        scores(small()[0])


@pytest.mark.parametrize("call", [popup.merge, popup.detach, popup.extract, popup.scores, popup.densities, popup.summary,
                                  popup.penalty, lambda net: popup.attach(net, er_p=0.5), lambda net: popup.advance(net, 0.5),
                                  lambda net: popup.order_scores(net, [])])
@pytest.mark.parametrize("net", [None, "resnet18", {}])
def test_what_is_no_network_is_refused_in_a_line(call, net):
    with pytest.raises(UsageError, match=f"net is a {type(net).__name__}: pass the network itself"):
        call(net)


@pytest.mark.parametrize("field", ["method", "scope", "score_scale"])
def test_settings_refuse_what_they_do_not_know(field):
    with pytest.raises(UsageError, match=field):
        SearchSettings(**{field: "unknown"})


# --- detach, merge, copies

@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_detach_gives_a_plain_network_of_the_same_outputs(scope, weights):
    net = train(small(scope=scope, weights=weights))
    net.eval()
    expected, rows = net(images()), densities(net)
    assert detach(net) is net
    assert torch.equal(net(images()), expected)
    assert [type(module) for module in net.modules()] == [type(module) for module in plain().modules()]
    assert net.state_dict().keys() == plain().state_dict().keys()
    assert not any(parametrize.is_parametrized(module) for module in net.modules())
    assert not net._forward_hooks and not net._forward_pre_hooks and not net._forward_hooks_always_called
    assert set(vars(net)) == set(vars(plain()))
    assert not any(parameter.requires_grad for parameter in net.parameters())
    kept = [int(net.get_parameter(layer.name).count_nonzero()) for layer in find_layers(net)]
    assert kept == [row.kept for row in rows]
    torch.save(net, io.BytesIO())


def test_merge_leaves_the_original_working_and_apart():
    net = train(small())
    net.eval()
    expected, before = net(images()), [score.detach().clone() for score in scores(net)]
    merged = merge(net)
    assert torch.equal(merged(images()), expected)
    for parameter in merged.parameters():
        parameter.data.zero_()
    assert torch.equal(net(images()), expected)
    net.train()
    train(net)
    assert not any(map(torch.equal, before, scores(net)))
    net.eval()
    assert torch.equal(merge(net)(images()), net(images()))
    detach(net)


@pytest.mark.parametrize("first", ["copy", "original"])
def test_a_deep_copy_lives_on_when_the_other_is_detached(first):
    net = train(small())
    other = copy.deepcopy(net)
    assert all(a is not b and torch.equal(a, b) for a, b in zip(scores(net), scores(other), strict=True))
    train(other, 3)
    detached, kept = (other, net) if first == "copy" else (net, other)
    kept.eval()
    expected = kept(images())
    detach(detached)
    assert torch.equal(kept(images()), expected)
    kept.train()
    before = [score.detach().clone() for score in scores(kept)]
    train(kept)
    assert not any(map(torch.equal, before, scores(kept)))
    assert torch.equal(kept[0].weight != 0, merge(kept)[0].weight != 0)


def test_training_a_copy_is_training_the_original():
    net = small()
    other = copy.deepcopy(net)
    train(net, 3), train(other, 3)
    assert all(map(torch.equal, scores(net), scores(other)))
    assert all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))


def test_attach_detach_attach_is_attach():
    net = train(small(seed=1))
    attach(detach(net), er_p=0.5, k=0.5, seed=2)
    fresh = small(seed=2)
    assert torch.equal(net(images()), fresh(images()))
    train(net), train(fresh)
    assert all(map(torch.equal, scores(net), scores(fresh)))


def test_a_state_dict_of_scores_and_statistics_restores_a_search():
    net = train(small())
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = small()
    other.load_state_dict(torch.load(file))
    assert torch.equal(other.eval()(images()), net.eval()(images()))
    assert not any(name.endswith(("gaps", "values")) for name in net.state_dict()), "the source is drawn again by its seed"


def test_a_whole_attached_network_cannot_be_pickled_and_torch_says_what_can():
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        torch.save(small(), io.BytesIO())


# --- densities, scopes, empty layers

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


def test_a_network_that_keeps_an_activation_can_be_merged():
    class Keeping(nn.Sequential):
        def forward(self, inputs):
            self.features = torch.relu(self[0](inputs))
            return self[1](self.features)

    net = attach(Keeping(nn.Linear(4, 8), nn.Linear(8, 2)), er_p=0.7)
    found = net(torch.ones(3, 4))
    assert torch.equal(merge(net)(torch.ones(3, 4)), found) and net.features.grad_fn is not None


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


def test_what_was_parametrized_after_attach_is_not_lost_by_detach():
    net = small()
    parametrize.register_parametrization(net[6], "bias", nn.Identity())
    with pytest.raises(UsageError, match=r"^6\.bias has been parametrized since attach: remove that parametrization first$"):
        detach(net)
    assert net(images()).shape == (4, 5) and len(scores(net)) == 3
    parametrize.remove_parametrizations(net[6], "bias")
    detach(net)
    assert type(net[6]) is nn.Linear and not parametrize.is_parametrized(net[6])


def test_a_replica_of_a_layer_is_told_what_to_use():
    search = search_of(small())
    with pytest.raises(UsageError, match=r"^0\.weight is of a replica \(nn\.DataParallel\?\)"):
        search.gate(search.layers[0]._replicate_for_data_parallel())


def wrappers():
    net = plain()
    yield nn.DataParallel(net)
    yield torch.compile(net, backend="eager")


def test_a_wrapper_is_refused():
    """It has the names `module.` or `_orig_mod.`, and DistributedDataParallel sums the gradients of parameters that are there."""
    for net in wrappers():
        with pytest.raises(UsageError, match=f"{type(net).__name__} wraps a network.*attach the network itself, then wrap it"):
            attach(net, er_p=0.5)


@pytest.mark.parametrize("change", ["replace", "plain"])
def test_a_layer_that_is_no_longer_attached_is_told_of(change):
    net = attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), er_p=0.5)
    if change == "replace":
        net[1] = nn.Linear(8, 3)
    else:
        torch.nn.utils.parametrize.remove_parametrizations(net[1], "weight")
    for use in (scores, merge, densities, extract):
        with pytest.raises(UsageError, match=r"1\.weight is no longer what attach made of it"):
            use(net)


@pytest.mark.parametrize("bias", ["zero", "search"])
def test_a_merged_network_has_its_parameters_in_their_order(bias):
    """Flat vectors of parameters and optimisers' states by number go by it."""
    def build():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.MultiheadAttention(8, 2), nn.Linear(8, 4))

    expected = [name for name, _ in build().named_parameters()]
    net = attach(build(), er_p=0.5, bias=bias)
    assert [name for name, _ in merge(net).named_parameters()] == expected
    assert [name for name, _ in detach(net).named_parameters()] == expected


def test_an_average_of_networks_with_their_buffers_has_the_same_source():
    """torch averages buffers of integers by rounding down, which moved edges."""
    net = attach(nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10)), er_p=0.05, weights="kaiming_normal")
    averaged = AveragedModel(net, use_buffers=True, avg_fn=lambda mean, new, _: 0.9999 * mean + (1 - 0.9999) * new)
    for _ in range(5):
        averaged.update_parameters(net)
    for mine, theirs in zip(search_of(net).layers, search_of(averaged.module).layers, strict=True):
        assert torch.equal(mine.flat_edges(), theirs.flat_edges()) and torch.equal(mine.values, theirs.values)
    assert not any(tensor is layer.values for tensor in net.buffers() for layer in search_of(net).layers)


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


@pytest.mark.parametrize(("options", "why"), [
    ({"density": {}}, "the density mapping has no p_l for '0.weight'"),
    ({"mask": "given", "masks": [1, 2]}, "masks are a list: pass a mapping"),
    ({"mask": "given", "masks": {"0.weight": None, "1.weight": None}}, r"the mask of 0\.weight is")])
def test_densities_and_masks_that_are_none_are_one_line(options, why):
    with pytest.raises(UsageError, match=why):
        attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), **options)


def test_numbers_of_numpy_and_sparse_masks_are_taken():
    given = {"0.weight": np.float32(0.5), "1.weight": np.float64(1)}
    net = attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), density=given)
    assert [row.p_l for row in densities(net)] == [0.5, 1.0]
    net = attach(nn.Linear(6, 8), mask="given", masks={"weight": torch.eye(8, 6, dtype=torch.bool).to_sparse()})
    assert [row.edges for row in densities(net)] == [6]


def test_merge_makes_no_copy_of_the_search(monkeypatch):
    net = attach(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), er_p=0.5, seed=3)
    monkeypatch.setattr(Search, "__getstate__", lambda self: pytest.fail("copied"))
    plain = merge(net)
    assert not plain._forward_pre_hooks and not plain._forward_hooks and type(plain[0]) is nn.Linear and not is_attached(plain)
    assert len(net._forward_pre_hooks) == 3 and is_attached(net)
    plain[0].weight.data.zero_()
    assert torch.equal(merge(net)[0].weight, net[0].weight) and bool(net[0].weight.any())


class Anew(nn.Sequential):
    """A network that builds itself anew where it is copied."""

    def __deepcopy__(self, memo):
        return Anew(nn.Linear(6, 3))


def test_a_copy_that_is_another_network_is_told():
    net = attach(Anew(nn.Linear(6, 3)), er_p=0.5)
    with pytest.raises(UsageError, match="Anew is not attached"):
        merge(net)
    assert is_attached(net) and len(net._forward_pre_hooks) == 3


def test_a_layer_whose_name_no_ticket_can_hold_is_refused_before_the_search():
    net = nn.ModuleDict({"fine": nn.Linear(4, 3), "an\x1b[31morder": nn.Linear(3, 2)})
    with pytest.raises(UsageError, match=r"'an\\x1b\[31morder\.weight', and names"):
        attach(net, er_p=0.5)
    assert not is_attached(net) and is_attached(attach(net, er_p=0.5, skip=["an*"]))

"""The registry of maskable modules: what is in and out of a weight, its fan_in and densities, skip and only, tied tensors."""

import numpy as np
import pytest
import torch
from torch import nn

from popup import UsageError, register
from popup.source import Recipe, draw_layer, maskable
from popup.source.degrees import count_degrees
from popup.source.densities import layer_densities
from popup.source.layers import Layer, find_layers
from popup.source.maskable import Sides


class Backwards(nn.Module):
    """A linear layer whose weight is [in, out] and has another name."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x):
        return x @ self.kernel


@pytest.fixture
def registry(monkeypatch):
    """The registry, as it is after the test too."""
    monkeypatch.setattr(maskable, "KINDS", list(maskable.KINDS))


def sides_of(module, **options):
    return [layer.sides for layer in find_layers(nn.Sequential(module), **options)]


def test_what_each_of_torchs_kinds_connects():
    assert sides_of(nn.Linear(3, 5)) == sides_of(nn.Conv2d(4, 6, 3, groups=2)) == [None]
    assert sides_of(nn.MultiheadAttention(4, 2, kdim=3, vdim=5)) == [None] * 4
    assert sides_of(nn.ConvTranspose1d(4, 6, 4, stride=2)) == [Sides(6, 4, (4,), 8.0, inputs_first=True)]
    assert sides_of(nn.ConvTranspose2d(4, 6, 3, groups=2)) == [Sides(6, 2, (3, 3), 18.0, inputs_first=True)]
    assert sides_of(nn.ConvTranspose3d(4, 6, 1, stride=2)) == [Sides(6, 4, (1, 1, 1), 4.0, inputs_first=True)]
    assert sides_of(nn.Bilinear(3, 4, 5)) == [Sides(5, 12, (), 12)]
    assert sides_of(nn.Embedding(7, 3), only=("*",)) == [Sides(3, 7, (), 1, inputs_first=True)]


@pytest.mark.parametrize(("module", "inputs"), [
    (nn.ConvTranspose2d(4, 6, 3), (8, 4, 20, 20)), (nn.ConvTranspose2d(4, 6, 4, stride=2), (8, 4, 20, 20)),
    (nn.ConvTranspose2d(4, 6, 3, groups=2), (8, 4, 20, 20)), (nn.ConvTranspose1d(8, 3, 3, stride=3), (64, 8, 30))])
def test_fan_in_is_what_keeps_an_outputs_size(module, inputs):
    """Weights of variance 1 / fan_in leave inputs of variance 1 as they are, away from the margins."""
    torch.manual_seed(0)
    layer, = find_layers(nn.Sequential(module))
    nn.init.normal_(module.weight, std=layer.fan_in**-0.5)
    nn.init.zeros_(module.bias)
    found = []
    for _ in range(40):
        nn.init.normal_(module.weight, std=layer.fan_in**-0.5)
        out = module(torch.randn(inputs)).detach()
        found.append(out[..., 6:-6].var() if out.dim() == 3 else out[..., 6:-6, 6:-6].var())
    assert abs(torch.stack(found).mean() - 1) < 0.15


def test_a_weight_the_other_way_round_has_the_densities_of_a_linear_layers():
    straight = [Layer("a", (6, 40)), Layer("b", (30, 9)), Layer("c", (8, 4, 3, 3))]
    turned = [Layer("a", (40, 6), sides=Sides(6, 40, (), 40, inputs_first=True)), Layer("b", (30, 9)),
              Layer("c", (4, 8, 3, 3), sides=Sides(8, 4, (3, 3), 36, inputs_first=True))]
    for density in ("erk", "erk_sum", "balanced", "pyramidal", "uniform"):
        assert layer_densities(straight, 0.2, density) == layer_densities(turned, 0.2, density)


def test_experts_have_the_density_that_each_would_have_alone():
    one = [Layer("a", (6, 40)), Layer("b", (30, 9))]
    many = [Layer("a", (5, 6, 40), sides=Sides(6, 40, (), 40)), Layer("b", (5, 30, 9), sides=Sides(30, 9, (), 9))]
    assert layer_densities(one, 0.2, "erk") == pytest.approx(layer_densities(many, 0.2, "erk"))


@pytest.mark.parametrize(("layer", "outputs"), [
    (Layer("a", (3, 4)), 3), (Layer("a", (4, 3), sides=Sides(3, 4, (), 4, inputs_first=True)), 3),
    (Layer("a", (2, 4, 3), sides=Sides(3, 4, (), 4, inputs_first=True)), 6),
    (Layer("a", (4, 3, 2, 2), sides=Sides(6, 2, (2, 2), 8.0, inputs_first=True)), 6),
    (Layer("a", (5, 24), sides=Sides(3, 2, (2, 2), 8)), 15)])
def test_rows_are_what_feeds_one_output(layer, outputs):
    """Where rows of another layout are numbered by their outputs, each row holds one number alone."""
    rows = layer.rows(torch.arange(layer.entries, dtype=torch.float32).view(layer.shape))
    assert rows.shape == (outputs, layer.entries // outputs)
    assert rows.flatten().sort().values.tolist() == list(range(layer.entries))
    if layer.sides and layer.sides.inputs_first and not layer.kernel and len(layer.shape) == 2:
        assert rows[1].tolist() == [1, 4, 7, 10]
    if layer.kernel and len(layer.shape) == 4:  # two groups: the fourth output takes the second half of the inputs
        assert rows[3].tolist() == [24, 25, 26, 27, 36, 37, 38, 39]


def test_one_registers_a_module_of_ones_own(registry):
    net = nn.Sequential(Backwards(4, 6), nn.Linear(6, 2))
    assert [layer.name for layer in find_layers(net)] == ["1.weight"]
    register(Backwards, "in out", weight="kernel")
    assert find_layers(net)[0] == Layer("0.kernel", (4, 6), sides=Sides(6, 4, (), 4, inputs_first=True))
    register(f"{Backwards.__module__}.Back*", "in out", weight=("kernel",), fan_in=2)
    assert find_layers(net)[0].fan_in == 2


@pytest.mark.parametrize(("arguments", "words"), [
    ((nn.Linear, "out"), "order is 'out'"), ((nn.Linear, "in out deep"), "order is 'in out deep'"), ((nn.Linear, ""), "is ''"),
    ((nn.Linear, "* out in"), r"order is '\* out in'"), ((nn.Linear, "out out in"), "order is"), ((3,), "kind is 3"),
    ((int,), "kind is <class 'int'>"), (("",), "kind is ''")])
def test_a_registration_that_says_nothing_is_refused(registry, arguments, words):
    with pytest.raises(UsageError, match=words):
        register(*arguments)
    for bad in ({"weight": ()}, {"weight": "a.b"}, {"weight": 3.5 and ("",)}, {"fan_in": 0}, {"fan_in": "x"}):
        with pytest.raises(UsageError):
            register(nn.Linear, **bad)


def test_a_weight_of_other_dimensions_than_registered_is_named(registry):
    register(Backwards, "copies in out", weight="kernel")
    with pytest.raises(UsageError, match=r"kernel of Backwards has shape \[4, 6\], and is registered as 'copies in out'"):
        find_layers(nn.Sequential(Backwards(4, 6)))


# --- skip and only

def network():
    return nn.ModuleDict({"emb": nn.Embedding(5, 4), "body": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
                          "head": nn.Linear(4, 5)})


@pytest.mark.parametrize(("options", "names"), [
    ({}, ["body.0.weight", "body.1.weight", "head.weight"]), ({"skip": ("head",)}, ["body.0.weight", "body.1.weight"]),
    ({"skip": ("*.1", "head")}, ["body.0.weight"]), ({"only": ("body",)}, ["body.0.weight", "body.1.weight"]),
    ({"only": ("*",)}, ["emb.weight", "body.0.weight", "body.1.weight", "head.weight"]),
    ({"only": ("*",), "skip": ("body", "head.weight")}, ["emb.weight"])])
def test_skip_and_only_say_what_is_masked(options, names):
    assert [layer.name for layer in find_layers(network(), **options)] == names
    assert [layer.name for layer in Recipe(**options).layers(network())] == names


def test_what_is_skipped_may_be_what_would_be_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(UsageError, match=r"^1\.weight is in a module that is already parametrized.*skip=\('1',\)"):
        find_layers(net)
    assert [layer.name for layer in find_layers(net, skip=("1",))] == ["0.weight"]


@pytest.mark.parametrize("options", [{"skip": ("heads",)}, {"only": ("bodies.*",)}])
def test_a_pattern_that_is_of_nothing_is_refused(options):
    with pytest.raises(UsageError, match=f"is of no parameter .of {next(iter(options))}."):
        find_layers(network(), **options)


def test_when_all_is_skipped_there_is_nothing_to_mask():
    with pytest.raises(UsageError, match=r"no weight to mask.*but for what skip and only leave out"):
        find_layers(network(), skip=("*",))


def test_a_bias_goes_with_its_weight():
    names = [layer.name for layer in find_layers(network(), biases=True, skip=("body.0.weight", "head.bias"))]
    assert names == ["body.1.weight", "body.1.bias", "head.weight"]


# --- tied tensors

class Tied(nn.Module):
    """An output layer that has its embedding's weight, as transformers' have them."""

    def __init__(self, flag=True):
        super().__init__()
        self.embedding, self.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.body = nn.Linear(4, 4)
        if flag:
            self.config = type("Config", (), {"tie_word_embeddings": True})


def test_a_head_that_is_its_embedding_is_refused_with_what_helps():
    with pytest.raises(UsageError) as error:
        find_layers(Tied())
    said = str(error.value)
    assert said.startswith("embedding.weight is the same tensor as out.weight, which alone would be masked: build it of a "
                           "config object whose tie_word_embeddings was set to False")
    assert "skip=('out',)" in said and "only=(..., 'out', 'embedding')" in said and "\n" not in said
    with pytest.raises(UsageError, match="masked: give each module its own"):
        find_layers(Tied(flag=False))


def test_what_is_said_to_help_helps():
    assert [layer.name for layer in find_layers(Tied(), skip=("out",))] == ["body.weight"]
    both = find_layers(Tied(), only=("out", "embedding", "body"))
    assert both == [Layer("embedding.weight", (5, 4), also=("out.weight",)), Layer("body.weight", (4, 4))]
    assert both[0].fan_in == 4  # the product's: a look-up sums nothing


def test_users_that_read_a_tensor_otherwise_do_not_agree(registry):
    register(Backwards, "in out", weight="kernel")
    net = nn.Sequential(nn.Linear(4, 4), Backwards(4, 4))
    net[1].kernel = net[0].weight
    with pytest.raises(UsageError, match=r"^1\.kernel is the same tensor as 0.weight, and they read it otherwise"):
        find_layers(net)


def test_connected_is_for_outputs_and_inputs():
    several = [Layer("a", (5, 6, 40), sides=Sides(6, 40, (), 40)), Layer("b", (5, 3, 4), sides=Sides(5, 12, (), 12))]
    for layer in several:
        with pytest.raises(UsageError, match=f"^connected is for layers of outputs and inputs, and {layer.name} "):
            draw_layer(Recipe(er_p=0.5, connected=True), layer, 0.5)
    turned = Layer("c", (30, 9), sides=Sides(9, 30, (), 30, inputs_first=True))
    edges = draw_layer(Recipe(er_p=0.2, connected=True), turned, 0.2).edges
    assert set(edges // 9) == set(range(30)) and set(edges % 9) == set(range(9))


def test_degrees_are_those_of_what_a_weight_connects():
    straight, turned = np.zeros((3, 4)), Layer("a", (4, 3), sides=Sides(3, 4, (), 4, inputs_first=True))
    straight[1], straight[:, 2] = 1, 1
    found = count_degrees(turned, 0.5, np.flatnonzero(straight.T))
    assert found.into.tolist() == [1, 4, 1] and found.out.tolist() == [1, 1, 3, 1]

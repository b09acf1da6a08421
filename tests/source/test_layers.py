"""Finding the layers of a network: names, order and shapes, and what is refused, by name."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from popup.errors import UsageError
from popup.source.frozen import freeze, is_gain, is_norm
from popup.source.layers import Layer, find_layers, locate
from popup.source.maskable import Sides


class Tied(nn.Module):
    """An output layer that uses its embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5)
        self.out.weight = self.embedding.weight


class Holder(nn.Module):
    """A Linear beside a parameter of the module itself, which may be the Linear's weight."""

    def __init__(self, tie):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.token = self.fc.weight if tie else nn.Parameter(torch.zeros(3))


def tied_linears():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


def the_same_module_twice():
    fc = nn.Linear(3, 3)
    return nn.Sequential(fc, nn.ReLU(), fc)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def old_weight_norm():
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3)))


def pruned():
    net = nn.Sequential(nn.Linear(3, 3))
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net


def empty():
    net = nn.Sequential(nn.Linear(1, 1))
    net[0].weight = nn.Parameter(torch.empty(0, 3))
    return net


REFUSED = {
    "tied embedding": (Tied, r"embedding\.weight is the same tensor as out\.weight"),
    "tied parameter": (lambda: Holder(True), r"token is the same tensor as fc\.weight"),
    "lazy linear": (lambda: nn.Sequential(nn.LazyLinear(3)), r"0\.weight is lazy"),
    "lazy convolution": (lambda: nn.Sequential(nn.ReLU(), nn.LazyConv2d(3, 3)), r"1\.weight is lazy"),
    "lazy norm": (lambda: nn.Sequential(nn.Linear(3, 3), nn.LazyBatchNorm1d()), r"1\.weight is lazy"),
    "lazy statistics": (lambda: nn.Sequential(nn.Linear(3, 3), nn.LazyBatchNorm1d(affine=False)),
                        r"1\.running_mean is lazy"),
    "parametrized": (lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3))), r"0\.weight .*parametrized"),
    "parametrized bias": (lambda: nn.Sequential(parametrize.register_parametrization(nn.Linear(3, 3), "bias", nn.ReLU())),
                          r"0\.weight .*parametrized"),
    "old weight_norm": (old_weight_norm, r"0\.weight is not a parameter .*skip=\('0',\) of attach, or --skip 0"),
    "torch's own pruning": (pruned, r"0\.weight is not a parameter"),
    "complex": (lambda: nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), r"0\.weight has dtype torch\.complex64"),
    "no entries": (empty, r"0\.weight has shape \[0, 3\]"),
    "no weight": (lambda: nn.Sequential(nn.ReLU(), nn.LayerNorm(3)), "Sequential has no weight to mask"),
    "an embedding alone": (lambda: nn.Embedding(3, 3), "Embedding has no weight to mask"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*lazy:UserWarning", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_masked_is_refused_by_name_in_one_line(case):
    build, words = REFUSED[case]
    with pytest.raises(UsageError, match=words) as error:
        find_layers(build())
    assert "\n" not in str(error.value)


def test_layers_come_in_the_order_of_definition_with_their_shapes():
    inner = nn.ModuleDict({"b": nn.Linear(3, 2), "a": nn.Conv3d(1, 2, (1, 2, 3))})
    net = nn.Sequential(nn.Conv1d(2, 4, 5, groups=2), inner, nn.Embedding(4, 4), nn.ConvTranspose2d(2, 2, 2),
                        nn.Bilinear(2, 2, 2), nn.Conv2d(4, 4, 3, bias=False))
    assert find_layers(net) == [Layer("0.weight", (4, 1, 5)), Layer("1.b.weight", (2, 3)),
                                Layer("1.a.weight", (2, 1, 1, 2, 3)),
                                Layer("3.weight", (2, 2, 2, 2), sides=Sides(2, 2, (2, 2), 8.0, inputs_first=True)),
                                Layer("4.weight", (2, 2, 2), sides=Sides(2, 4, (), 4)), Layer("5.weight", (4, 4, 3, 3))]


@pytest.mark.parametrize(("build", "names"), [(tied_linears, ("0.weight", "1.weight")),
                                              (the_same_module_twice, ("0.weight", "2.weight"))])
def test_a_tensor_that_two_modules_use_alike_is_one_layer(build, names):
    layer, = find_layers(build())
    assert layer.names == names and layer.entries == 9


def test_a_single_layer_is_a_network():
    assert find_layers(nn.Linear(3, 2)) == [Layer("weight", (2, 3))]


@pytest.mark.parametrize(("options", "names"), [
    ({}, ["in_proj_weight", "out_proj.weight"]),
    ({"kdim": 3, "vdim": 5}, ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"])])
def test_attention_packs_its_weights(options, names):
    assert [layer.name for layer in find_layers(nn.MultiheadAttention(4, 2, **options))] == names


def test_subclasses_of_linear_count():
    class Wide(nn.Linear):
        """A user's own."""

    assert find_layers(Wide(3, 2))[0].shape == (2, 3)


def test_an_untied_parameter_is_no_hindrance():
    assert [layer.name for layer in find_layers(Holder(False))] == ["fc.weight"]


def test_counts_of_a_layer():
    layer = Layer("a", (8, 2, 3, 5))
    assert (layer.entries, layer.fan_in, layer.kernel) == (240, 30, (3, 5))
    assert Layer("a", (8, 2)).kernel == ()


def test_owner_is_the_module_and_the_attribute():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert locate(net, "0.0.weight") == (net[0][0], "weight")
    assert locate(net[0][0], "bias") == (net[0][0], "bias")


def test_a_norm_is_known_by_its_name():
    assert all(map(is_norm, (nn.BatchNorm2d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2), nn.InstanceNorm1d(2))))
    assert not any(map(is_norm, (nn.Linear(2, 2), nn.ReLU(), nn.Embedding(2, 2))))


def test_a_blocks_gain_is_known_by_its_name():
    assert all(map(is_gain, ("layer_scale", "gamma", "gamma_1", "skipinit_gain", "gain", "layer_scale_1")))
    assert not any(map(is_gain, ("weight", "class_token", "logit_scale", "pos_embedding", "in_proj_weight")))


class PreNorm(nn.Sequential):
    """A block with a norm in its name and in it."""


class NormalizedLinear(nn.Module):
    """A cosine classifier."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))


class ChannelNorm(nn.Module):
    """A norm of somebody's own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 6, 1, 1), 3.0))


class BN(nn.BatchNorm2d):
    """A norm by another name."""


def test_norms_are_known_by_class_or_name_and_are_not_what_holds_weights():
    block = PreNorm(nn.LayerNorm(6), nn.Linear(6, 6))
    assert [is_norm(module) for module in (block, *block)] == [False, True, False]
    assert not is_norm(NormalizedLinear()) and is_norm(ChannelNorm()) and is_norm(BN(6)) and is_norm(nn.RMSNorm((4, 5)))
    net = nn.ModuleList([block, NormalizedLinear(), ChannelNorm(), BN(6)])
    net[3].weight.data.fill_(3.0)
    before = net[1].weight.clone()
    freeze(net)
    assert torch.equal(net[1].weight, before) and (net[2].weight == 1).all() and (net[3].weight == 1).all()

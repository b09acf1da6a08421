"""Chains of layers in words: the modules they name, and one line for words that name none."""

import pytest
import torch
from torch import nn

from models import MODELS, resolve
from models.resnet import residual


def test_words_are_modules_in_their_order():
    net = resolve("chain:conv3p1-relu-max2-conv3x1s2x1d2-relu-avg1x2-flatten-linear-relu-linear")((2, 12, 8), 5, (4, 6, 7))
    assert [type(module) for module in net] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d, nn.ReLU, nn.AvgPool2d, nn.Flatten,
                                                nn.Linear, nn.ReLU, nn.Linear]
    first, second = net[0], net[3]
    assert first.weight.shape == (4, 2, 3, 3) and first.padding == (1, 1) and first.bias is not None
    assert second.weight.shape == (6, 4, 3, 1) and (second.stride, second.dilation) == ((2, 1), (2, 2))
    assert net[2].stride == (2, 2) and net[5].kernel_size == (1, 2) and net[7].weight.shape == (7, 6 * 1 * 2)
    assert net(torch.zeros(3, 2, 12, 8)).shape == (3, 5)


def test_a_chain_with_a_constant_has_no_biases():
    net = resolve("chain:one-conv1-relu-flatten-linear")((1, 2, 2), 3, (4,), width=2.0)
    assert [tuple(parameter.shape) for parameter in net.parameters()] == [(8, 2, 1, 1), (3, 32)]
    x = torch.rand(2, 1, 2, 2)
    assert torch.equal(net[0](x), torch.cat([x, torch.ones(2, 1, 2, 2)], 1))


def test_the_mlp_with_a_constant_is_a_chain():
    assert str(MODELS["mlp_constant"]((1, 4, 4), 3, (5, 6))) == str(
        resolve("chain:flatten-one-linear-relu-linear-relu-linear")((1, 4, 4), 3, (5, 6)))


def test_a_shortcut_adds_what_there_was():
    net = resolve("chain:conv3p1-relu-skip-conv3p1-relu-conv1-add-relu-flatten-linear")((1, 4, 4), 3, (2, 5, 2))
    x = torch.randn(2, 2, 4, 4)
    assert torch.equal(net[2](x), x + net[2].body(x)) and [type(module) for module in net[2].body] == [
        nn.Conv2d, nn.ReLU, nn.Conv2d]


def test_a_norm_is_a_batch_norm_and_the_layer_before_it_has_no_bias():
    net = resolve("chain:conv3p1-norm-relu-flatten-linear-norm-relu-linear")((2, 4, 4), 3, (5, 6))
    assert [type(module) for module in net] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear, nn.BatchNorm1d,
                                                nn.ReLU, nn.Linear]
    assert [net[1].num_features, net[5].num_features] == [5, 6]
    assert [net[place].bias is None for place in (0, 4, 7)] == [True, True, False]


def test_a_residual_block_with_norms_is_a_chain():
    """That of models/resnet.py: the same parameters in the same order, the same function."""
    torch.manual_seed(0)
    words = resolve("chain:conv3p1-norm-relu-skip-conv3p1-norm-relu-conv3p1-norm-add-relu-avg8-flatten-linear")(
        (1, 8, 8), 10, (3, 3, 3))
    torch.manual_seed(0)
    block = residual((1, 8, 8), 10, (3,), (1,))
    x = torch.randn(5, 1, 8, 8)
    assert all(map(torch.equal, words.parameters(), block.parameters()))
    torch.testing.assert_close(words(x), block(x))


@pytest.mark.parametrize(("words", "why"), [
    ("conv", "'conv' is no layer: write "), ("", "'' is no layer"), ("relu2", "'relu2' is no layer"), ("conv3q1", "'conv3q1'"),
    ("conv3-os", "'os' is no layer"), ("conv3p3", "'conv3p3' cannot be: .*padding is less than the kernel"),
    ("max0", "'max0' cannot be"), ("conv3s0", "'conv3s0' cannot be"), ("avg3p1", "an average has no padding"),
    ("conv9999", "'conv9999' is no layer")])
def test_words_that_name_no_layer_are_refused_before_anything_is_built(words, why):
    with pytest.raises(ValueError, match=why) as error:
        resolve(f"chain:{words}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("words", "widths", "why"), [
    ("conv3-relu-flatten-linear", (), "has 2 layers: give 1 widths"), ("flatten-linear", (3,), "has 1 layers: give 0 widths"),
    ("flatten-conv3", (), "conv cannot follow flatten"), ("conv3-linear", (3,), "linear needs flatten"),
    ("max5-flatten-linear", (), r"max5-.* does not fit images \[1, 4, 4\]"),
    ("skip-conv3-add-flatten-linear", (1,), r"an add of \[1, 2, 2\] to \[1, 4, 4\]: open it by a skip, and keep the shape"),
    ("conv1-add-flatten-linear", (1,), "open it by a skip"), ("skip-add-flatten-linear", (), "open it by a skip"),
    ("skip-conv1-skip-conv1-add-flatten-linear", (1, 1), "has a skip that no add ends before the next"),
    ("skip-conv1-flatten-linear", (1,), "has a skip that no add ends")])
def test_chains_that_cannot_be_are_refused(words, widths, why):
    with pytest.raises(ValueError, match=why):
        resolve(f"chain:{words}")((1, 4, 4), 2, widths)

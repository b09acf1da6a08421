"""Each network has the parameter count that is published for it, and the layers that its paper lists."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from models import MODELS

MNIST, CIFAR, IMAGENET = ((1, 28, 28), 10), ((3, 32, 32), 10), ((3, 224, 224), 1000)

EXACT = {  # name: (image and classes, width, parameters); the source of each figure stands beside it
    # Han et al., NeurIPS 2015, table 1: 267K and 431K; 784*300+300 + 300*100+100 + 100*10+10
    "lenet_300_100": (MNIST, 1, 266_610),
    # 20*25+20 + 50*20*25+50 + 800*500+500 + 500*10+10
    "lenet5": (MNIST, 1, 431_080),
    # Frankle and Carbin, ICLR 2019, figure 2: 4.3M and 2.4M
    "conv2": (CIFAR, 1, 4_301_642),
    "conv4": (CIFAR, 1, 2_425_930),
    # github.com/kuangliu/pytorch-cifar, whose networks these are
    "resnet18": (CIFAR, 1, 11_173_962),
    "resnet34": (CIFAR, 1, 21_282_122),
    "resnet50": (CIFAR, 1, 23_520_842),
    "vgg11": (CIFAR, 1, 9_231_114),
    "vgg16": (CIFAR, 1, 14_728_266),
    "vgg19": (CIFAR, 1, 20_040_522),  # Frankle and Carbin, figure 2: 20.0M
    # He et al., CVPR 2016, table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M
    "resnet20": (CIFAR, 1, 269_722),
    "resnet20_elu": (CIFAR, 1, 269_722),
    "resnet32": (CIFAR, 1, 464_154),
    "resnet44": (CIFAR, 1, 658_586),
    "resnet56": (CIFAR, 1, 853_018),
    "resnet110": (CIFAR, 1, 1_727_962),
    # Zagoruyko and Komodakis, BMVC 2016, table 4: WRN-28-10 36.5M
    "wide_resnet28": (CIFAR, 10, 36_479_194),
    # pytorch.org/vision/stable/models.html, num_params
    "gpt": (((64,), 256), 1, 867_328),  # tokens, places, four blocks, a norm, a head of its own
    "imagenet_resnet18": (IMAGENET, 1, 11_689_512),
    "imagenet_resnet34": (IMAGENET, 1, 21_797_672),
    "imagenet_resnet50": (IMAGENET, 1, 25_557_032),
    "imagenet_resnet101": (IMAGENET, 1, 44_549_160),
    "wide_resnet50": (IMAGENET, 1, 68_883_240),
    # no published figure: the arithmetic. Two hidden layers of 256 on 784 pixels
    "mlp": (MNIST, 1, 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
    "mlp_constant": (MNIST, 1, 785 * 256 + 256 * 256 + 256 * 10),
    # 8x8 digits: 1-32-32-pool-64-64-pool, 2x2 pixels left
    "small_conv": (((1, 8, 8), 10), 1, 9 * (32 + 32 * 32 + 32 * 64 + 64 * 64) + 192 + 4 * 64 * 10 + 10),
    # the convolutions are the 1.1M of Frankle and Carbin; their total of 1.7M does not follow from 4x4x256-256-256-10
    "conv6": (CIFAR, 1, 1_145_408 + 4096 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
    # Conv-6's convolutions, 256-512 and 512-512 with biases, 2x2x512-256-256-10
    "conv8": (CIFAR, 1, 1_145_408 + 9 * (256 + 512) * 512 + 1024 + 2048 * 256 + 256 + 256 * 256 + 256 + 2570),
    # README of kosnil/signed_supermasks, without biases: 4,300,992, 2,425,024, 2,261,184 and 5,275,840
    "conv2_elu": (CIFAR, 1, 4_300_992 + 650),
    "conv4_elu": (CIFAR, 1, 2_425_024 + 906),
    "conv6_elu": (CIFAR, 1, 2_261_184 + 1_418),
    "conv8_elu": (CIFAR, 1, 5_275_840 + 2_442),
    # patches 4*4*3 -> 192; a block: two norms, 192 -> 3*192, 192 -> 192, 192 -> 768 -> 192; norm; classes
    "vit": (CIFAR, 1, 48 * 192 + 192 + 6 * (4 * 192 + 193 * 576 + 193 * 192 + 193 * 768 + 769 * 192) + 384 + 1930),
}

SHAPES = {  # the layers in order, as (how many, shape)
    "mlp": [(1, (256, 784)), (1, (256, 256)), (1, (10, 256))],
    "mlp_constant": [(1, (256, 785)), (1, (256, 256)), (1, (10, 256))],
    "lenet_300_100": [(1, (300, 784)), (1, (100, 300)), (1, (10, 100))],
    "lenet5": [(1, (20, 1, 5, 5)), (1, (50, 20, 5, 5)), (1, (500, 800)), (1, (10, 500))],
    "conv8": [(1, (64, 3, 3, 3)), (1, (64, 64, 3, 3)), (1, (128, 64, 3, 3)), (1, (128, 128, 3, 3)), (1, (256, 128, 3, 3)),
              (1, (256, 256, 3, 3)), (1, (512, 256, 3, 3)), (1, (512, 512, 3, 3)), (1, (256, 2048)), (1, (256, 256)),
              (1, (10, 256))],
    "resnet18": [(1, (64, 3, 3, 3)), (4, (64, 64, 3, 3)),
                 (1, (128, 64, 3, 3)), (1, (128, 128, 3, 3)), (1, (128, 64, 1, 1)), (2, (128, 128, 3, 3)),
                 (1, (256, 128, 3, 3)), (1, (256, 256, 3, 3)), (1, (256, 128, 1, 1)), (2, (256, 256, 3, 3)),
                 (1, (512, 256, 3, 3)), (1, (512, 512, 3, 3)), (1, (512, 256, 1, 1)), (2, (512, 512, 3, 3)), (1, (10, 512))],
    "resnet20": [(1, (16, 3, 3, 3)), (6, (16, 16, 3, 3)), (1, (32, 16, 3, 3)), (5, (32, 32, 3, 3)), (1, (64, 32, 3, 3)),
                 (5, (64, 64, 3, 3)), (1, (10, 64))],
    "vgg16": [(1, (64, 3, 3, 3)), (1, (64, 64, 3, 3)), (1, (128, 64, 3, 3)), (1, (128, 128, 3, 3)), (1, (256, 128, 3, 3)),
              (2, (256, 256, 3, 3)), (1, (512, 256, 3, 3)), (5, (512, 512, 3, 3)), (1, (10, 512))],
    "wide_resnet28": [(1, (16, 3, 3, 3)), (1, (160, 16, 3, 3)), (1, (160, 160, 3, 3)), (1, (160, 16, 1, 1)),
                      (6, (160, 160, 3, 3)), (1, (320, 160, 3, 3)), (1, (320, 320, 3, 3)), (1, (320, 160, 1, 1)),
                      (6, (320, 320, 3, 3)), (1, (640, 320, 3, 3)), (1, (640, 640, 3, 3)), (1, (640, 320, 1, 1)),
                      (6, (640, 640, 3, 3)), (1, (10, 640))],
    "vit": [(1, (192, 3, 4, 4)), *[(1, shape) for shape in [(576, 192), (192, 192), (768, 192), (192, 768)] * 6],
            (1, (10, 192))],
}


def build(name, width=None):
    """The network of the table without memory for its weights: only shapes are asked for."""
    (image, classes), factor, _ = EXACT[name]
    with torch.device("meta"):
        return MODELS[name](image, classes, width=width or factor)


def layers(net):
    return [tuple(module.weight.shape) for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def test_every_network_of_the_table_is_there():
    assert set(EXACT) <= set(MODELS)


@pytest.mark.parametrize("name", EXACT)
def test_published_parameter_count(name):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == EXACT[name][2]


@pytest.mark.parametrize("name", SHAPES)
def test_layers_in_order(name):
    assert layers(build(name)) == [shape for count, shape in SHAPES[name] for _ in range(count)]


@pytest.mark.parametrize("name", ["conv2", "conv4", "conv6", "conv8", "resnet20"])
def test_the_same_with_elu_has_the_same_layers_by_name(name):
    with_elu = build(f"{name}_elu")
    assert {key: value.shape for key, value in with_elu.state_dict().items()} == {
        key: value.shape for key, value in build(name).state_dict().items()}
    kinds = [type(module) for net in (build(name), with_elu) for module in net.modules()]
    assert kinds.count(nn.ELU) == kinds.count(nn.ReLU) > 3


@pytest.mark.parametrize(("name", "depth"), [("resnet32", 32), ("resnet44", 44), ("resnet56", 56), ("resnet110", 110),
                                             ("vgg11", 9), ("vgg19", 17), ("conv2", 5), ("conv4", 7), ("conv6", 9)])
def test_number_of_weight_layers(name, depth):
    """The paper's count; the CIFAR form of VGG has one linear layer where the paper's has three."""
    assert len(layers(build(name))) == depth


@pytest.mark.parametrize(("name", "depth", "shortcuts"), [("resnet34", 34, 3), ("resnet50", 50, 4)])
def test_depth_of_option_b_without_its_projections(name, depth, shortcuts):
    net = build(name)
    projections = [path for path, module in net.named_modules() if "shortcut.0" in path]
    assert (len(layers(net)) - len(projections), len(projections)) == (depth, shortcuts)
    assert layers(net)[-1] == (10, 512 if name == "resnet34" else 2048)


def test_the_table_in_the_documentation_is_this_one():
    text = (Path(__file__).parents[2] / "docs" / "models-and-data.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text, re.MULTILINE))
    shown = {name: f"{count:,}" for name, (_, _, count) in EXACT.items() if name != "wide_resnet28"}
    shown["wide_resnet28"] = f"{sum(parameter.numel() for parameter in build('wide_resnet28', 1).parameters()):,}"
    assert rows == shown
    assert f"{EXACT['wide_resnet28'][2]:,} at `--width 10`" in text

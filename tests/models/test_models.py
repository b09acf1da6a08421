"""What every network does: right output, a width factor that scales it, and names that are found or refused in one line."""

import pickle
import sys

import pytest
import torch
from torch import nn

from models import MODELS, resolve
from models.resnet import Padding
from models.vit import patch_sides, positions
from models.widths import scaled

TEXTS = ["gpt"]  # networks that read no images


def small(name):
    """The image (or window of tokens) that a network takes in a test of its output: as small as it can."""
    if name in TEXTS:
        return (16,)
    return (1, 28, 28) if name.startswith("lenet") else (2, 32, 32)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in TEXTS])
def test_narrow_networks_give_one_logit_a_class_that_depends_on_the_image(name):
    torch.manual_seed(0)
    net = MODELS[name](small(name), 7, width=0.25).train()
    images = torch.randn(4, *small(name), requires_grad=True)
    logits = net(images)
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert images.grad.flatten(1).abs().sum(1).min() > 0
    assert all(parameter.grad is not None for parameter in net.parameters())


def pooled_last(net):
    """The same network with each ReLU that follows a max pool before it."""
    modules = [part for module in net for part in (module if isinstance(module, nn.Sequential) else (module,))]
    pairs = [place for place, module in enumerate(modules) if isinstance(module, nn.MaxPool2d)]
    assert pairs and all(isinstance(modules[place + 1], nn.ReLU) for place in pairs)
    for place in pairs:
        modules[place:place + 2] = modules[place + 1], modules[place]
    return nn.Sequential(*modules)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["small_conv", "conv4", "vgg11"])
def test_pooling_before_the_relu_is_the_same_to_the_bit(name, precision):
    """In bf16 many values of a window are equal; the images' zeros make windows without a positive value."""
    torch.manual_seed(0)
    net = MODELS[name]((3, 32, 32), 10, width=0.25).to(precision).train()
    images = torch.randn(8, 3, 32, 32).relu().to(precision, memory_format=torch.channels_last)
    found = []
    for order in (net, pooled_last(net)):
        net.zero_grad()
        logits = order(images)
        logits.square().sum().backward()
        found.append([logits, *(parameter.grad.clone() for parameter in net.parameters())])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", MODELS)
def test_width_scales_parameters_about_quadratically(name):
    def count(width):
        with torch.device("meta"):
            net = MODELS[name](small(name), 10, width=width)
        return sum(parameter.numel() for parameter in net.parameters())

    assert 1.5 < count(2) / count(1) < 4.5
    assert count(0.01) < count(0.5) < count(1)


def test_widths_round_to_the_nearest_halves_up_and_never_to_nothing():
    assert scaled((64, 3, 1), 0.5) == (32, 2, 1)
    assert scaled((16, 100), 0.001) == (1, 1)
    assert scaled((192,), 0.5, 12) == (96,) and scaled((192,), 0.33, 12) == (60,) and scaled((192,), 0.01, 12) == (12,)
    with pytest.raises(ValueError, match=r"width is 0"):
        scaled((3,), 0)
    with pytest.raises(ValueError, match="nan"):
        scaled((3,), float("nan"))


def test_widths_of_ones_own():
    assert MODELS["mlp"]((1, 2, 2), 3, (5,))[1].weight.shape == (5, 4)
    assert MODELS["resnet18"]((1, 8, 8), 3, (4, 6))(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match="5 widths for 4 stages"):
        MODELS["resnet18"]((1, 8, 8), 3, (4, 4, 4, 4, 4))
    with pytest.raises(ValueError, match="from 8 to 4 channels"):
        MODELS["resnet20"]((1, 8, 8), 3, (8, 4))


def test_zero_padding_shortcut_keeps_pixels_and_puts_zeros_on_both_sides():
    x = torch.arange(1, 19.0).view(1, 2, 3, 3)
    y = Padding(2, 5, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2]) and not y[:, [0, 3, 4]].any()
    assert torch.equal(Padding(2, 2, 1)(x), x)


@pytest.mark.parametrize(("sides", "patch"), [((32, 32), (4, 4)), ((28, 28), (4, 4)), ((8, 8), (2, 2)),
                                              ((64, 64), (8, 8)), ((30, 20), (5, 5)), ((31, 31), (31, 31)),
                                              ((27, 32), (27, 32))])
def test_patches_divide_the_image(sides, patch):
    assert patch_sides(*sides) == patch
    assert MODELS["vit"]((3, *sides), 4, width=1 / 16)(torch.ones(2, 3, *sides)).shape == (2, 4)


def test_positions_differ_and_are_fixed():
    table = positions(8, 8, 12)
    assert table.shape == (1, 64, 12) and torch.equal(table, positions(8, 8, 12))
    assert len({tuple(row) for row in table[0].tolist()}) == 64
    assert "positions" not in MODELS["vit"]((1, 8, 8), 3).state_dict()


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "torchvision:mnasnet0_5", "torchvision:vit_b_32",
                                  "torchvision:googlenet"])
def test_networks_of_torchvision_take_any_channels_and_classes(name):
    with torch.device("meta"):
        net = resolve(name)((1, 32, 32), 7)
        assert net.train()(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_a_network_of_timm():
    pytest.importorskip("timm", reason="timm is optional")
    assert resolve("timm:test_vit")((1, 32, 32), 7)(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match=r"timm has no .*'resnot18'.*resnet18"):
        resolve("timm:resnot18")


def test_without_timm_one_line_names_the_installation(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^timm is not installed: python -m pip install timm$"):
        resolve("timm:resnet18")


def test_ones_own_builder_is_found_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "import torch\ndef build(image, classes):\n    return torch.nn.Linear(2, classes)\nsize = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    assert resolve("own_networks:build")((2,), 3).weight.shape == (3, 2)
    assert sys.path == [*before, str(tmp_path)]  # for what the function imports when it is called
    with pytest.raises(ValueError, match=r"own_networks:size is int"):
        resolve("own_networks:size")
    with pytest.raises(ValueError, match=r"own_networks:bild is not there"):
        resolve("own_networks:bild")


@pytest.mark.parametrize("name", ["torchvision:resnet19", "torchvision:", "nowhere.at_all:build", ":", "a:b:c",
                                  "torchvision:fcn_resnet50"])
def test_what_is_not_there_is_one_line(name):
    with pytest.raises(ValueError) as error:
        resolve(name)
    assert "\n" not in str(error.value) and len(str(error.value)) > 30


def test_names_are_a_mapping_that_a_process_can_be_handed():
    copy = pickle.loads(pickle.dumps(MODELS))
    assert list(copy) == list(MODELS) and copy["mlp"] is MODELS["mlp"]
    assert "mlp" in MODELS and "mpl" not in MODELS
    with pytest.raises(KeyError):
        resolve("mpl")
    assert pickle.loads(pickle.dumps(resolve("torchvision:resnet18")))((3, 32, 32), 4).fc.weight.shape == (4, 512)

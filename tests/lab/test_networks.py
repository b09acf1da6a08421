"""The network of a config: by name, by width, by a user's function; what cannot be is refused in one line."""

import pytest
import torch
from torch import nn

from models import MODELS
from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.networks import build_network
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build


def config(**changes):
    return Config().replace(**changes)


def test_width_and_widths_reach_the_builder():
    net = build_network(MODELS, config(model="mlp", widths=(8, 4), width=0.5), (1, 4, 4), 3)
    assert [tuple(layer.weight.shape) for layer in net if isinstance(layer, nn.Linear)] == [(4, 16), (2, 4), (3, 2)]


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "imagenet_resnet18"])
def test_a_network_of_torchvision_on_gray_images(name):
    assert build_network(MODELS, config(model=name), (1, 32, 32), 5).training


def reshaped(image, classes):
    return nn.Flatten()


def double(image, classes):
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    return Two()


def failing(image, classes):
    raise ValueError("first line\nsecond line")


def complaining(image, classes):
    raise AssertionError


OWN = {"reshaped": reshaped, "double": double, "failing": failing, "complaining": complaining,
       "no_module": lambda image, classes: 3,
       "plain": lambda image, classes: nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))}

REFUSED = [
    (MODELS, {"model": "mpl"}, r"unknown model 'mpl': did you mean 'mlp'.*torchvision:NAME.*MODULE:FUNCTION"),
    (MODELS, {"model": "torchvision:resnet19"}, r"'torchvision:resnet19': torchvision has no .*near are resnet18"),
    (MODELS, {"model": "chain:conv3-gelu"}, r"'chain:conv3-gelu': 'gelu' is no layer"),
    (MODELS, {"model": "nowhere:build"}, r"'nowhere:build'.*MODULE:FUNCTION"),
    (MODELS, {"model": "torchvision:squeezenet1_1", "width": 0.5}, "takes no --width"),
    (MODELS, {"model": "imagenet_resnet18", "widths": (3,)}, "takes no --widths"),
    (MODELS, {"model": "vgg11"}, r"'vgg11' cannot be built for images \[1, 8, 8\]"),
    (MODELS, {"model": "torchvision:alexnet"}, r"'torchvision:alexnet' cannot be built for images \[1, 8, 8\]"),
    (MODELS, {"model": "vit", "widths": (3,), "width": 2.0}, r"with widths \[3\] with width 2\.0"),
    (OWN, {"model": "reshaped"}, r"makes \[2, 64\] of two images, not logits \[2, 3\]"),
    (OWN, {"model": "double"}, "makes tuple of two images"),
    (OWN, {"model": "failing"}, r"first line \(test_networks\.py, line \d+\)$"),
    (OWN, {"model": "complaining"}, r"AssertionError \(test_networks\.py, line \d+\)$"),
    (OWN, {"model": "no_module"}, "returned int, not a torch.nn.Module"),
    (OWN, {"model": "plain", "width": 2.0}, "takes no --width"),
]


@pytest.mark.parametrize(("models", "changes", "words"), REFUSED, ids=[case[1]["model"] for case in REFUSED])
def test_what_cannot_be_built_is_one_line(models, changes, words):
    with pytest.raises(UsageError, match=words) as error:
        build_network(models, config(**changes), (1, 8, 8), 3)
    assert "\n" not in str(error.value)


class Token(nn.Module):
    """A network with a parameter that is no layer's, drawn at random."""

    def __init__(self, classes):
        super().__init__()
        self.token = nn.Parameter(torch.randn(64))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        return self.fc(x.flatten(1) + self.token)


def test_what_a_builder_draws_comes_from_the_seed(tmp_path):
    laboratory = Laboratory({"token": lambda image, classes: Token(classes)}, Machine(device="cpu", threads=1), tmp_path)
    before = torch.get_rng_state()
    first, again, other = (build(laboratory, config(model="token", seed=seed)).token for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_ones_own_builder_may_leave_sizes_to_the_first_image():
    net = build_network(OWN, config(model="plain"), (1, 8, 8), 3)
    assert net[1].weight.shape == (3, 64) and net(torch.zeros(4, 1, 8, 8)).shape == (4, 3)

"""Targets: a network is read as the chain of layers that it is, or refused in one line."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import MODELS
from popup.errors import UsageError
from popup.theory.reading import read_target
from popup.theory.steps import Step

LOW, HIGH = -1.0, 2.0
FLAT, MAPS = (1, 1, 3), (2, 6, 7)


class Skip(nn.Module):
    """Adds its input, of both signs; `hidden`: in a way that no graph can be drawn of."""

    def __init__(self, outputs=3, hidden=False):
        super().__init__()
        self.one, self.two, self.hidden = nn.Linear(3, 3), nn.Linear(3, outputs), hidden

    def forward(self, x):
        if self.hidden and not torch.is_tensor(x) | (float(x.sum()) > 0):
            return x
        return x.flatten(1) + self.two(torch.relu(self.one(x.flatten(1))))


class Beside(nn.Module):
    """Convolutions with a shortcut that other modules pass by, or stand in."""

    def __init__(self, body, shortcut=None, pair=False):
        super().__init__()
        self.pair = pair
        self.first, self.body, self.shortcut = nn.Conv2d(2, 2, 3, 1, 1), body, shortcut or nn.Identity()
        self.head = nn.Linear(84, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        found = self.head(torch.flatten(torch.relu(self.shortcut(x) + self.body(x)), 1))
        return (found, found) if self.pair else found


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.conv(input=x)


class Gelu(nn.Module):
    def forward(self, x):
        return F.gelu(x)


class Functional(nn.Module):
    """As networks are often written: ReLU and flatten are functions, and one pool is used twice."""

    def __init__(self, twice):
        super().__init__()
        self.head, self.pool = nn.Linear(4, 2), nn.MaxPool2d(2)  # not in the order of the calls
        self.one, self.two, self.twice = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1), twice

    def forward(self, x):
        x = self.pool(F.relu(self.one(x)))
        x = F.relu(self.two(x))
        x = self.pool(x) if self.twice else F.max_pool2d(x, 2)
        return self.head(torch.flatten(x, 1))


class InPlace(nn.Module):
    """Changes its input itself before a chain."""

    def __init__(self, change):
        super().__init__()
        self.chain, self.change = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), change

    def forward(self, x):
        return self.chain(self.change(x))


def chained(*layers, outputs=None):
    """A function that makes nn.Sequential of the layers; with `outputs` a linear layer of so many inputs ends it. Its weights
    are drawn when it is called: the layers themselves are older than a test's seed."""
    def make():
        for layer in layers:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        return nn.Sequential(*layers, *([nn.Flatten(), nn.Linear(outputs, 2)] if outputs else []))

    return make


READ = {  # network and the words of its source
    "mlp": (chained(nn.Flatten(), nn.Linear(84, 3), nn.ReLU(), nn.Linear(3, 2)), "flatten-one-linear-relu-linear-relu-linear"),
    "pooling first": (chained(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 3), nn.ReLU(), nn.Linear(3, 2)),
                      "avg2-flatten-one-linear-relu-linear-relu-linear"),
    "ReLU around": (chained(nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten()),
                    "max2-relu-one-conv1-relu-conv3-relu-flatten"),
    "functional": (lambda: Functional(True),
                   "one-conv1-relu-conv3p1-relu-max2-conv3p1-relu-max2-flatten-linear"),
    "pooling before ReLU": (chained(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.ReLU(), outputs=12),
                            "one-conv1-relu-conv3-avg2-relu-flatten-linear"),
    "options": (chained(nn.Conv2d(2, 4, (3, 2), 2, (2, 1), (2, 1), groups=2, bias=False), nn.ReLU(), nn.MaxPool2d(3, 1, 1),
                        nn.Conv2d(4, 3, 3, padding="same"), nn.ReLU(), nn.AdaptiveAvgPool2d((1, None)), outputs=12),
                "one-conv1-relu-conv3x2s2p2x1d2x1-relu-max3s1p1-conv3p1-relu-avg3x1-flatten-linear"),
    "ReLU in place": (chained(nn.ReLU(inplace=True), nn.Conv2d(2, 3, 3), nn.ReLU(), outputs=60),
                      "relu-one-conv1-relu-conv3-relu-flatten-linear"),
    "no linear layer": (chained(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                        "one-conv1-relu-conv3-relu-conv1-avg4x5-flatten"),
}


@pytest.mark.parametrize("name", READ)
def test_a_chain_is_read_as_it_is_called(name):
    make, words = READ[name]
    torch.manual_seed(0)
    net = make()
    target = read_target(net, MAPS, LOW, HIGH)
    assert target.source() == words and net.training
    x = torch.randn(9, *MAPS)
    with torch.no_grad():
        np.testing.assert_allclose(target(x.double().numpy()), net(x.clone()).numpy(), atol=1e-5)


def trained_norms(net):
    """The network with norms that have seen something."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean, -0.3, 0.3), nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2), nn.init.uniform_(module.bias, -0.3, 0.3)
    return net


def block(words, *widths):
    return lambda: MODELS[f"chain:{words}"]((2, 6, 7), 2, widths)


SHORTCUTS = {  # network, the image, widths of the chain that it equals, and the words of its source
    "of the input": (Skip, FLAT, [3, 9, 3], "flatten-one-linear-relu-linear-relu-linear"),
    "behind a ReLU": (block("flatten-linear-relu-skip-linear-relu-linear-add-relu-linear", 3, 5, 3), MAPS, [84, 3, 8, 3, 2],
                      "flatten-one-linear-relu-linear-relu-linear-relu-linear-relu-linear"),
    "of a map": (block("conv3p1-relu-max2-skip-conv3p1-relu-conv3p1-add-relu-flatten-linear", 3, 4, 3), MAPS, [2, 3, 7, 3, 2],
                 "one-conv1-relu-conv3p1-relu-max2-conv3p1-relu-conv3p1-relu-flatten-linear"),
    "past two ReLUs": (block("conv3p1-relu-skip-conv1-relu-conv3p1-relu-conv1-add-relu-max2-flatten-linear", 3, 2, 4, 3), MAPS,
                       [2, 3, 5, 7, 3, 2], "one-conv1-relu-conv3p1-relu-conv1-relu-conv3p1-relu-conv1-relu-max2-flatten-linear"),
    "a norm alone": (chained(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4, affine=False), nn.ReLU(), outputs=80), MAPS,
                     [2, 4, 2], "one-conv1-relu-conv3-relu-flatten-linear"),
    "a ResNet": (lambda: MODELS["resnet18"]((2, 6, 7), 2, (3, 4)), MAPS, [2, 3, 6, 3, 6, 3, 12, 4, 8, 4, 2],
                 "-".join(["one-conv1", *["relu-conv3p1"] * 5, "relu-conv3s2p1", *["relu-conv3p1"] * 3,
                           "relu-avg3x4-flatten-linear"])),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_network_with_shortcuts_or_norms_is_the_chain_that_carries_them_along(name):
    make, image, widths, words = SHORTCUTS[name]
    torch.manual_seed(0)
    net = trained_norms(make()).eval()
    target = read_target(net, image, LOW, HIGH)
    assert target.widths == widths and target.source() == words
    x = torch.rand(50, *image) * (HIGH - LOW) + LOW
    with torch.no_grad():
        np.testing.assert_allclose(target(x.double().numpy()), net(x.clone()).numpy(), atol=1e-5)


def test_a_shortcut_of_inputs_of_one_sign_takes_one_neuron_each():
    assert read_target(Skip(), FLAT, 0.0, HIGH).widths == [3, 6, 3]


def test_layers_are_matrices_over_channels_and_taps():
    net = READ["options"][0]()
    target = read_target(net, MAPS, LOW, HIGH)
    assert [(layer.weight.shape, layer.taps, layer.channels, layer.padded) for layer in target.layers] == [
        ((4, 12), 6, 2, True), ((3, 36), 9, 4, True), ((2, 12), 4, 3, False)]
    first = target.layers[0].weight.reshape(4, 2, 3, 2)
    np.testing.assert_array_equal(first[[0, 2], [0, 1]], net[0].weight.detach()[[0, 2], 0].double())
    assert not first[:2, 1].any() and not first[2:, 0].any() and target.widths == [2, 4, 3, 2]


CASES = [(kernel, stride, padding, dilation, side) for kernel, stride, padding, dilation, side in
         product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2), (3, 4, 7)) if side + 2 * padding > dilation * (kernel - 1)]


def test_the_tap_of_the_biases_is_never_in_the_padding():
    """Against convolutions of a map of ones with one tap: 1 everywhere if and only if the tap is always inside."""
    found = []
    for kernel, stride, padding, dilation, side in CASES:
        step = Step("conv", *((value, value) for value in (kernel, stride, padding, dilation)))
        taps = torch.eye(kernel * kernel).view(-1, 1, kernel, kernel)
        maps = F.conv2d(torch.ones(1, 1, side, side), taps, None, stride, padding, dilation)[0]
        assert step.sides((side, side)) == tuple(maps.shape[1:])
        always = [tap for tap in range(kernel * kernel) if bool((maps[tap] == 1).all())]
        inside = step.inside((side, side))
        assert (inside is None and not always) or inside in always
        found.append(inside)
    assert None in found and Step("conv", (3, 3), padding=(1, 1)).inside((8, 8)) == 4


FLAT_REFUSED = {
    "no linear layer": (lambda: nn.Flatten(), "no chain .*: it has no linear layer"),
    "GELU": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), "no chain .*: it has GELU"),
    "skip that no graph shows": (lambda: Skip(hidden=True), "no chain of .* between them: its outputs differ by "),
    "norm of the batch": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)),
                          "a norm without running statistics"),
    "sum without ReLU": (lambda: nn.Sequential(Skip(), nn.Linear(3, 2)), "a Linear follows a layer, or a sum, with no ReLU"),
    "sum of two shapes": (lambda: Skip(2), "it adds what is not of one shape"),
    "no ReLU": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 2)),
                "a linear follows a layer with no activation"),
    "shifted in place": (lambda: InPlace(lambda x: x.sub_(0.5)), "its outputs differ by "),
    "clamped in place": (lambda: InPlace(lambda x: x.clamp_(0, 1)), "its outputs differ by "),
    "unused layers": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 2)), "layer of 2 outputs is followed by one of 3"),
    "another image": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), r"has 4 inputs, and an image \[1, 1, 3\] has 3"),
    "norm": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.LayerNorm(2)), "it has LayerNorm"),
    "convolution of numbers": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Conv2d(4, 2, 1)),
                               "it has a Conv2d where there is no map"),
}
MAPS_REFUSED = {
    "functional pooling": (lambda: Functional(False), r"36 outputs is followed by one of 4 inputs \(pooling is seen"),
    "other channels": (chained(nn.Conv2d(3, 2, 1), nn.ReLU(), outputs=2), r"first convolution has 3 channels, .* has 2"),
    "too small": (chained(nn.Conv2d(2, 2, 8), nn.ReLU(), outputs=2), r"an image \[2, 6, 7\] is too small for it"),
    "reflected": (chained(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(), outputs=84), "mode 'reflect'"),
    "even same": (chained(nn.Conv2d(2, 2, 2, padding="same"), nn.ReLU(), outputs=84), "padding 'same' with an even kernel"),
    "no tap": (chained(nn.Conv2d(2, 2, 1, padding=1), nn.ReLU(), outputs=144), "conv1p1 has no tap that lies nowhere in the"),
    "padded average": (chained(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), outputs=84), "AvgPool2d has padding"),
    "ceil mode": (chained(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), outputs=24), "has ceil_mode"),
    "indices": (chained(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2, return_indices=True), nn.ReLU(), outputs=18),
                r"it cannot take an image \[2, 6, 7\]: "),
    "unequal parts": (chained(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), outputs=32), "are no equal parts"),
    "norm": (chained(nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.ReLU(), outputs=84), "it has GroupNorm"),
    "norm before a layer": (chained(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), outputs=84),
                            "its BatchNorm2d stands behind no layer"),
    "norm after an activation": (chained(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2), outputs=84), "stands behind no layer"),
    "another activation behind a norm": (chained(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.LeakyReLU(0.1), outputs=84),
                                         "has to be a ReLU, and it has LeakyReLU"),
    "pool beside": (lambda: Beside(nn.MaxPool2d(3, 1, 1)), "a shortcut passes by a pool"),
    "taken by name": (lambda: Beside(Named()), "conv takes what is no value of a layer, or takes it by name"),
    "two outputs": (lambda: Beside(nn.Identity(), pair=True), "output takes what is no value"),
    "another function": (lambda: Beside(nn.Sequential(nn.Conv2d(2, 2, 1), Gelu())), "beside a shortcut or a norm it calls gelu"),
    "pixels beside": (lambda: Beside(nn.Conv2d(2, 2, 5, 1, 2), nn.Conv2d(2, 2, 3, 1, 1)),
                      "beside its conv5p2 a shortcut would have to pass as conv3p1, which is of other pixels"),
    "activation beside": (lambda: Beside(nn.Tanh()), "has to be a ReLU, and it has Tanh"),
    "no ReLU": (chained(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), outputs=18), "a linear follows a layer with no activation between"),
    "unflattened": (chained(nn.Conv2d(2, 2, 1)), "its outputs differ by inf"),
    "another image": (chained(nn.Conv2d(2, 2, 3), nn.ReLU(), outputs=5), "40 outputs is followed by one of 5 inputs"),
}
REFUSED = [(make, words, image) for cases, image in ((FLAT_REFUSED, FLAT), (MAPS_REFUSED, MAPS))
           for make, words in cases.values()]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("make", "words", "image"), REFUSED, ids=[*FLAT_REFUSED, *(f"maps, {name}" for name in MAPS_REFUSED)])
def test_a_target_that_is_no_relu_chain_is_refused_in_one_line(make, words, image):
    torch.manual_seed(0)
    with pytest.raises(UsageError, match=words) as error:
        read_target(make(), image, LOW, HIGH)
    assert "\n" not in str(error.value)


class Far(nn.Module):
    """Is another function only where all of 16 inputs are -1, as no random input is; `middle` stands between its layers."""

    def __init__(self, middle, sign=1.0):
        super().__init__()
        self.one, self.two, self.middle = nn.Linear(16, 1), nn.Linear(1, 1), middle
        self.relu, self.same = nn.ReLU(inplace=True), nn.Identity()
        for layer, weight, bias in ((self.one, sign, 15.5), (self.two, 1.0, 0.0)):
            nn.init.constant_(layer.weight, weight), nn.init.constant_(layer.bias, bias)

    def forward(self, x):
        return self.two(self.middle(self, self.one(x.flatten(1))))


class Written(Far):
    """A sum of a layer and its ReLU, which may write to it."""

    def forward(self, x):
        h = self.one(x.flatten(1))
        return self.middle(self, h) + h


FAR = {
    "clamped": (lambda net, x: F.relu(x).clamp(max=31), -1.0, "it calls clamp, and of functions ReLU and flatten are read"),
    "by value": (lambda net, x: F.relu(x) * (2 if bool((x > 31).any()) else 1), -1.0, "it calls __bool__, any, gt, mul, and"),
    "functional leaky": (lambda net, x: F.leaky_relu(x), 1.0, "a linear follows a layer with no activation between"),
    "one of them": (lambda net, x: F.leaky_relu(F.relu(x)), 1.0, "it calls leaky_relu, and of functions"),
    "rounded": (lambda net, x: F.relu(x).to(torch.bfloat16).to(torch.float32), 1.0, "its outputs differ|it calls to, and of"),
    "no ReLU": (lambda net, x: x, 1.0, "a linear follows a layer with no activation between"),
}
IN_PLACE = {"module": lambda net, x: net.relu(x), "method": lambda net, x: x.relu_(), "by place": lambda net, x: F.relu(x, True),
            "by name": lambda net, x: F.relu(net.same(x), inplace=True), "of a copy": lambda net, x: F.relu(x)}


@pytest.mark.parametrize("name", FAR)
def test_what_no_random_input_shows_is_refused(name):
    """Of such a target a bound would be proved that is none."""
    middle, sign, words = FAR[name]
    with pytest.raises(UsageError, match=words) as error:
        read_target(Far(middle, sign), (1, 1, 16), -1.0, 1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_a_relu_has_written_to_is_read_so_from_there_on(name):
    net, x = Written(IN_PLACE[name]), -torch.ones(1, 1, 1, 16)
    found = read_target(net, (1, 1, 16), -1.0, 1.0)(x.double().numpy()).item()
    assert found == net(x).item() == (-0.5 if name == "of a copy" else 0.0)


def test_a_weight_that_is_computed_is_read_as_it_is():
    """Functions of what depends on no input are none of those that may be another at other inputs."""
    masked = type("Linear", (nn.Linear,), {
        "forward": lambda layer, x: F.linear(x, layer.weight * (layer.weight != 0), layer.bias.clamp(-9, 9))})
    net = nn.Sequential(nn.Flatten(), masked(3, 4), nn.ReLU(), masked(4, 2))
    assert np.array_equal(read_target(net, FLAT, LOW, HIGH).layers[0].weight, net[1].weight.detach().double().numpy())


@pytest.mark.parametrize("name", ["a chain", "a graph"])
def test_what_a_hook_does_is_seen(name):
    """No graph shows it."""
    net = Skip() if name == "a graph" else nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    layer = net.one if name == "a graph" else net[1]
    layer.register_forward_hook(lambda module, inputs, output: output.clamp(max=1000.0))
    with pytest.raises(UsageError, match="it calls clamp, and of functions ReLU and flatten are read"):
        read_target(net, FLAT, LOW, HIGH)


def test_a_cast_that_keeps_all_numbers_is_none():
    target = read_target(Far(lambda net, x: F.relu(x.to(torch.float32)).to("cpu").float()), (1, 1, 16), -1.0, 1.0)
    assert target.source() == "flatten-one-linear-relu-linear-relu-linear"


def test_two_activations_between_layers_are_one_only_if_they_are_relu():
    def net(activation):
        return nn.Sequential(nn.Flatten(), nn.Linear(3, 4), activation(), activation(), nn.Linear(4, 2))

    assert read_target(net(nn.ReLU), FLAT, LOW, HIGH).source() == "flatten-one-linear-relu-linear-relu-relu-linear"
    for activation in (nn.Tanh, nn.Sigmoid):
        with pytest.raises(UsageError, match="it has a tanh or sigmoid of another"):
            read_target(net(activation), FLAT, LOW, HIGH)


def test_a_target_that_is_not_finite_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    net[1].bias.data[0] = torch.nan
    with pytest.raises(UsageError, match="not finite"):
        read_target(net, FLAT, LOW, HIGH)


def test_modes_are_as_they_were():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.Dropout(), nn.ReLU(), nn.Linear(3, 2)).train()
    net[2].eval()
    read_target(net, FLAT, LOW, HIGH)
    assert net.training and net[3].training and not net[2].training

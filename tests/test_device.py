"""A step on any device but the CPU: its tensors stay together, and the host never waits for a value. No GPU is needed.

The device is torch's "meta", whose tensors have no data: whatever would bring one to the host raises. Fake tensors on it also
raise where an operation mixes devices, as a GPU would.
"""

import contextlib
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import popup
from popup.lab.bench.calls import META, count_calls
from popup.lab.config import TrainingSettings
from popup.lab.precision import Precision
from popup.lab.training.augmentation import Augmentation
from popup.lab.training.batches import Normalise
from popup.lab.training.optimizers import OPTIMIZERS, optimizer_of
from popup.lab.training.state import TrainingState
from popup.lab.training.training import train_step
from popup.search.gate import Gate
from popup.search.keys import Keys
from popup.search.methods import METHODS
from popup.search.network import search_of
from popup.search.parametrization import EdgeWeight
from popup.search.select import top
from popup.search.settings import SearchSettings

MODES = {"meta": contextlib.nullcontext, "fake": FakeTensorMode}
CASES = [(method, scope, p, "sgd") for method in METHODS for scope, p in (("layer", 0.3), ("layer", 1.0), ("global", 0.3))]
CASES += [("edge_popup", "layer", 0.3, optimizer) for optimizer in OPTIMIZERS if optimizer != "sgd"]


def without_data(tensor):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


def moved(net):
    """`net` with tensors on META, of the mode that is on, in the place of its own."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(without_data(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = without_data(buffer)
        for name in EdgeWeight.SOURCE if isinstance(module, EdgeWeight) else ():
            setattr(module, name, without_data(getattr(module, name)))
    return net


def attached(method="edge_popup", scope="layer", p=0.3):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    return popup.attach(net, er_p=p, k=0.4, search=SearchSettings(method, scope=scope), seed=3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("method", "scope", "p", "optimizer"), CASES)
def test_steps_and_evaluation_never_bring_a_value_to_the_host(method, scope, p, optimizer, mode):
    net, settings = attached(method, scope, p), TrainingSettings(optimizer=optimizer)
    with MODES[mode]():
        moved(net)
        state = TrainingState(net, popup.scores(net), optimizer_of(popup.scores(net), settings, 0.1), 4,
                              Precision(META, False, True))
        inputs, labels = torch.empty(6, 3, 8, 8, device=META), torch.empty(6, dtype=torch.int64, device=META)
        net.train()
        for step in range(3):
            if METHODS[method].learns:
                train_step(state, inputs, labels, 0.1, settings)
            state.search.advance((step + 1) / 12)
        with torch.no_grad():
            assert net.eval()(inputs).device == META


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_weights_in_bf16_are_kept_on_the_device(p, mode):
    net = attached(p=p)
    with MODES[mode]():
        for group in search_of(moved(net)).groups:
            for _ in range(2):  # made, then written to
                gate = Gate(torch.empty(group.count, dtype=torch.bool, device=META))
                for layer, weight in zip(group.layers, group.weights(gate, group.positions()[0], torch.bfloat16), strict=True):
                    assert (weight.device, weight.dtype, weight.shape) == (META, torch.bfloat16, layer.spec.shape)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_augmented_on_the_device(mode):
    augmentation = Augmentation(("crop", "flip", "resized_crop", "cutout"), (8, 8), seed=1)
    with contextlib.nullcontext() if mode == "meta" else FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(6, 3, 8, 8, dtype=torch.uint8, device=META)
        normalise = Normalise.from_record({"mean": [0.0] * 3, "deviation": [1.0] * 3}, images)
        draws = augmentation.draw(0, 6, META)
        inputs = normalise(augmentation.of_pixels(images, draws))
        assert augmentation.of_normalised(inputs, draws).shape == images.shape


@pytest.mark.parametrize("mode", MODES)
def test_what_a_gpu_would_not_do_raises_here(mode):
    with MODES[mode](), pytest.raises((RuntimeError, NotImplementedError)):  # the device is worth testing on
        keys = Keys(torch.empty(9, dtype=torch.int32, device=META))
        int(top(keys, 4).sum())
    with FakeTensorMode(), pytest.raises(RuntimeError):
        torch.empty(9, device=META) * torch.empty(9)


def test_selection_weights_and_gradients_of_resnet18_are_150_calls():
    """It was 441: 21 a layer."""
    build = partial(torchvision.models.resnet18, num_classes=10)
    assert count_calls(build, (3, 32, 32)).added <= 150

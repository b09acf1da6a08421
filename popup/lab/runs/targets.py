"""The target of `prove`: trained here or read from a file, with the domain on which it is to be met."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.data.streamed import first_images, in_memory
from popup.lab.machine import Machine
from popup.lab.precision import Precision
from popup.lab.runs.control_training import run_control
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.lab.runs.subnetwork import whole_source_of
from popup.lab.training.batches import Normalise
from popup.lab.training.training import evaluate, evaluation_parts
from popup.source.layer_source import draw
from popup.source.modes import in_mode
from popup.theory.calls import calls_of
from popup.theory.exact import quantise
from popup.theory.reading import read_target
from popup.theory.target import Target
from popup.ticket.file import read
from popup.ticket.sealed import apart
from popup.ticket.sparse import sparse_layers

COMPARED, ALIKE = 64, 1e-3  # images on which a network is compared with itself, and by how much of its outputs it may differ


@dataclass(frozen=True)
class Trained:
    """The target network, plain and in evaluation mode, as `theory` reads it; its accuracy in percent, its largest |output| on
    the data, and CPU seconds. `whole`: of a quantised target the network of whole numbers, and how much larger its outputs
    are."""

    net: nn.Module
    target: Target
    accuracy: float
    largest: float
    seconds: float
    whole: tuple[Target, float] | None = None


def as_they_are(laboratory: Laboratory, config: Config) -> None:
    """Have images of bytes go into networks as the numbers that they are, and not normalised."""
    data = laboratory.data(config)
    (images, labels), (tests, answers) = data.train, data.test
    laboratory.use(config, replace(data, train=(in_memory(images).float(), labels),
                                   test=(in_memory(tests).float(), answers),
                                   fingerprint=data.identity()))


def normalisation(laboratory: Laboratory, config: Config) -> Normalise:
    """What is done to images; of those that stay as they are it says so in a way that holds for bytes too."""
    images, found = laboratory.data(config).train[0], laboratory.normalise(config)
    channels = images.shape[1]
    same = {"mean": [0.0] * channels, "deviation": [1.0] * channels}
    return Normalise.from_record(same, images) if found.identity else found


def train_target(laboratory: Laboratory, config: Config, domain: Sequence[float] = (), raw: bool = False) -> Trained:
    """Train the config's dense network (its weights and biases) on its data; `raw`: for images that are not normalised."""
    began = time.process_time()
    net, data = build(laboratory, config), laboratory.data(config)
    few = Machine().threads_for(data.train[0].nbytes)  # steps of small data are too short for more: these would wait, and spin
    torch.set_num_threads(min(few, torch.get_num_threads()))
    layers = config.source.layers(net)
    sources = draw(config.source, layers, config.source.densities(layers))
    start = whole_source_of(config.source, sources)
    history, _ = run_control(net, data, config, start, lambda metrics: None)
    if raw:
        _fold(net, laboratory.normalise(config), first_images(data.train[0], COMPARED).to(laboratory.device))
        as_they_are(laboratory, config)
    return _trained(laboratory, config, net, history[-1]["test_accuracy"], time.process_time() - began, domain)


@torch.no_grad()
def _fold(net: nn.Module, normalise: Normalise, images: torch.Tensor) -> None:
    """Make a network for normalised images one for images as they are: the layer that it calls first does what was done to them.
    A UsageError if on some `images` it is another network then."""
    if normalise.identity:
        return
    wanted = in_mode(net, False)(normalise(images))
    calls, _ = calls_of(net, normalise(images))
    first = next(module for module in calls.steps if isinstance(module, (nn.Linear, nn.Conv2d)))
    padded = isinstance(first, nn.Conv2d) and (first.padding == "same" or any(map(bool, first.padding)))
    if padded or first.bias is None:
        raise UsageError("normalise is none, and the target is trained on normalised images: its first layer needs a bias and no "
                         "padding to do that by itself; leave --normalise out, or give --target")
    channels = len(normalise.mean)
    weight = first.weight.view(len(first.weight), channels, -1)  # [out, channels, taps or pixels]
    mean, deviation = normalise.mean.view(1, channels, 1), normalise.deviation.view(1, channels, 1)
    weight.div_(deviation)
    first.bias.sub_((weight * mean).sum((1, 2)))
    if float((net(images.float()) - wanted).abs().max()) > ALIKE * max(1.0, float(wanted.abs().max())):
        raise UsageError("normalise is none, and the target is trained on normalised images: what its first layer makes of them "
                         "is not all that it makes of them, so that this layer cannot normalise by itself; leave --normalise "
                         "out, or give --target")


def load_target(laboratory: Laboratory, config: Config, path: Path, domain: Sequence[float] = ()) -> Trained:
    """The config's network with the state_dict of a safetensors file; a UsageError if it does not fit."""
    began = time.process_time()
    net = build(laboratory, config)
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}: name a safetensors file with the target's state_dict")
    try:
        net.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise UsageError(f"{path} is no state_dict of {config.task.model} with widths {list(config.task.widths)}: "
                         f"{' '.join(str(error).split())[:200]}") from None
    net.requires_grad_(False)
    return _trained(laboratory, config, net, accuracy_of(laboratory, config, net), time.process_time() - began, domain)


def accuracy_of(laboratory: Laboratory, config: Config, net: nn.Module) -> float:
    """Percent of the test images, as `eval` measures it."""
    data = laboratory.data(config)
    images, labels = data.test[0].to(laboratory.device), data.test[1].to(laboratory.device)
    normalise = Normalise.from_record(laboratory.normalise(config).record(), images)
    sparse = Precision(laboratory.device, bf16=False, channels_last=False)  # such a network may have no dense layer to tell by
    precision = sparse if sparse_layers(net) else Precision.of(net, "fp32")
    return evaluate(net, images, labels, normalise, precision)["test_accuracy"]


@torch.no_grad()
def _trained(laboratory: Laboratory, config: Config, net: nn.Module, accuracy: float, seconds: float,
             domain: Sequence[float]) -> Trained:
    inputs = inputs_of(laboratory, config)
    low, high = float(min(part.min() for part in inputs.values())), float(max(part.max() for part in inputs.values()))
    if domain:
        if domain[0] > low or domain[1] < high:
            raise UsageError(f"domain is {domain[0]:g} {domain[1]:g}, and the images' values lie in [{low:.4g}, {high:.4g}]: "
                             "give one that holds them")
        low, high = domain
    target = read_target(in_mode(net, False), laboratory.data(config).image, low, high)
    return Trained(net, target, accuracy, _largest(laboratory, net, inputs), seconds)


def _largest(laboratory: Laboratory, net: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """The largest |output| on the data."""
    return max(float(net(images[part].clone().to(laboratory.device)).abs().max()) for images in inputs.values()
               for part in evaluation_parts(images))


@torch.no_grad()
def quantised(laboratory: Laboratory, config: Config, trained: Trained, bits: int) -> Trained:
    """The target with weights of so many bits, in its network too, with the accuracy that this leaves."""
    target, whole, size = quantise(trained.target, bits)
    net = trained.net
    layers = [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if any(getattr(layer, "groups", 1) > 1 for layer in layers):
        raise UsageError("the target has a grouped convolution, of which no exact ticket is made: leave --bits out")
    if [layer.weight.numel() for layer in layers] != [layer.weight.size for layer in target.layers]:
        raise UsageError("the target has shortcuts, whose chain has more weights than it has itself, so no exact ticket is made "
                         "of it: leave --bits out")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        raise UsageError("the target has norms, whose factors are no whole numbers, so no exact ticket is made of it: leave "
                         "--bits out")
    for module, layer in zip(_in_order(layers, trained.target), target.layers, strict=True):
        module.weight.copy_(torch.from_numpy(layer.weight).view_as(module.weight))
        if module.bias is not None:
            module.bias.copy_(torch.from_numpy(layer.bias))
    inputs = inputs_of(laboratory, config)
    found = read_target(net, laboratory.data(config).image, target.low, target.high)
    return replace(trained, target=found, accuracy=accuracy_of(laboratory, config, net),
                   largest=_largest(laboratory, net, inputs), whole=(whole, size))


def _in_order(layers: Sequence[nn.Linear | nn.Conv2d], target: Target) -> list[nn.Linear | nn.Conv2d]:
    """The modules in the order in which they are called, which need not be that in which they are declared: by their weights."""
    left, found = list(layers), []
    for layer in target.layers:
        held = torch.from_numpy(layer.weight).flatten()
        found.append(next((module for module in left if torch.equal(module.weight.flatten().to(held), held)), left[0]))
        left.remove(found[-1])
    return found


def target_file(trained: Trained) -> bytes:
    """The target's state_dict as a safetensors file, which `load_target` reads."""
    return safetensors.torch.save(apart(trained.net.state_dict()))


def target_hash(trained: Trained) -> str:
    """SHA-256 of the target's file, by which a ticket names its target."""
    return hashlib.sha256(target_file(trained)).hexdigest()


def check_tickets(out: Path, trained: Trained) -> None:
    """A UsageError if a ticket in `out` was built for another target, which the one that is written there would belie."""
    for path in sorted(out.glob("ticket-p*.safetensors")):
        about = read(path)[0].get("about")
        built = about.get("built") if isinstance(about, dict) else None
        if not isinstance(built, dict) or built.get("target") != target_hash(trained):
            raise UsageError(f"{path} is a ticket of another target: give another --out, or move it away")


def inputs_of(laboratory: Laboratory, config: Config) -> dict[str, torch.Tensor]:
    """The normalised images, by split."""
    data = laboratory.data(config)
    normalise = laboratory.normalise(config)
    return {data.evaluated_on: normalise(in_memory(data.test[0])),
            "training": normalise(in_memory(data.train[0]))}

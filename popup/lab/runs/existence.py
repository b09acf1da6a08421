"""What `prove` does: a target, the ticket built for it in one fixed ER source, and what edge-popup finds in that source."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config, TaskSettings
from popup.lab.data.dataset import Dataset
from popup.lab.precision import Precision
from popup.lab.runs.about import about_run
from popup.lab.runs.control_training import run_control
from popup.lab.runs.gaps import Gap, measure_gaps
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.lab.runs.subnetwork import whole_source_of
from popup.lab.training.batches import Normalise
from popup.lab.training.fit import fit
from popup.lab.training.state import Metrics
from popup.lab.training.training import EVALUATION_BATCH, evaluate
from popup.search.attach import attach_recipe
from popup.search.settings import SearchSettings
from popup.source.layers import Layer, find_layers
from popup.source.recipe import Recipe, draw
from popup.theory.construction import Construction, construct
from popup.theory.plan import Plan, make_plan
from popup.theory.reading import read_target
from popup.theory.target import Target
from popup.ticket.assembled import assemble
from popup.ticket.file import read
from popup.ticket.ticket import Ticket, extract

MLP = re.compile("flatten-one-linear(-relu-linear)+")
WEIGHTS = {"uniform": ("unit", 1 / sqrt(3)), "kaiming_normal": ("edges", sqrt(2))}  # scale and gain; uniform: U[-1, 1]
LARGE, SPARSE = 1_000_000, 0.1  # weights of a source, and density of a ticket, from which gaps are measured on kept edges alone
ROUNDING = 1e-5  # of the largest output: what float32 may add to a gap


@dataclass(frozen=True)
class Trained:
    """The target network, plain and in evaluation mode, as `theory` reads it; its accuracy in percent, its largest |output| on
    the data, and CPU seconds."""

    net: nn.Module
    target: Target
    accuracy: float
    largest: float
    seconds: float


@dataclass(frozen=True)
class Built:
    """A ticket that was built: its construction, its accuracy in percent, its gaps by name of the inputs, what rounding may
    add to them, CPU seconds."""

    plan: Plan
    construction: Construction
    ticket: Ticket
    gaps: dict[str, Gap]
    rounding: float
    seconds: float

    @property
    def accuracy(self) -> float:
        return self.ticket.about["test_accuracy"]

    @property
    def largest_gap(self) -> float:
        return max(gap.largest for gap in self.gaps.values())

    @property
    def sound(self) -> bool:
        """Whether no gap is above what is certain for the whole domain, as none can be."""
        return self.largest_gap <= self.construction.guaranteed + self.rounding


@dataclass(frozen=True)
class Found:
    """The ticket that edge-popup found in the same source, its accuracy in percent, and CPU seconds."""

    ticket: Ticket
    accuracy: float
    seconds: float


def train_target(laboratory: Laboratory, config: Config) -> Trained:
    """Train the config's dense network (its weights and biases) on its data."""
    began = time.process_time()
    net, data = build(laboratory, config), laboratory.data(config)
    layers = config.source.layers(net)
    sources = draw(config.source, layers, config.source.densities(layers))
    start = whole_source_of(config.source, sources)
    history, _ = run_control(net, data, config, start, lambda metrics: None)
    return _trained(laboratory, config, net, history[-1]["test_accuracy"], time.process_time() - began)


def load_target(laboratory: Laboratory, config: Config, path: Path) -> Trained:
    """The config's network with the state_dict of a safetensors file; a UsageError if it does not fit."""
    began = time.process_time()
    net, data = build(laboratory, config), laboratory.data(config)
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}: name a safetensors file with the target's state_dict")
    try:
        net.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise UsageError(f"{path} is no state_dict of {config.task.model} with widths {list(config.task.widths)}: "
                         f"{' '.join(str(error).split())[:200]}") from None
    net.requires_grad_(False)
    found = _accuracy(laboratory, data, net)
    return _trained(laboratory, config, net, found, time.process_time() - began)


def _accuracy(laboratory: Laboratory, data: Dataset, net: nn.Module) -> float:
    """Percent of the test images, as `eval` measures it."""
    images, labels = (part.to(laboratory.device) for part in data.test)
    normalise = Normalise(data.train[0].to(laboratory.device))
    return evaluate(net, images, labels, normalise, Precision.of(net, "fp32"))["test_accuracy"]


@torch.no_grad()
def _trained(laboratory: Laboratory, config: Config, net: nn.Module, accuracy: float, seconds: float) -> Trained:
    inputs = _inputs(laboratory, config)
    low, high = float(min(part.min() for part in inputs.values())), float(max(part.max() for part in inputs.values()))
    target = read_target(net.eval(), laboratory.data(config).image, low, high)
    largest = max(float(net(part.clone().to(laboratory.device)).abs().max()) for images in inputs.values()
                  for part in images.split(EVALUATION_BATCH))
    return Trained(net, target, accuracy, largest, seconds)


def target_file(trained: Trained) -> bytes:
    """The target's state_dict as a safetensors file, which `load_target` reads."""
    return safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in trained.net.state_dict().items()})


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


def _inputs(laboratory: Laboratory, config: Config) -> dict[str, torch.Tensor]:
    """The normalised images, by split."""
    data = laboratory.data(config)
    normalise = Normalise(data.train[0])
    return {data.evaluated_on: normalise(data.test[0]), "training": normalise(data.train[0])}


def source_recipe(weights: str, p: float, seed: int) -> Recipe:
    """The source of theory: ER(p), one seed, weights of `weights` in the scale of WEIGHTS, which no k changes."""
    scale, gain = WEIGHTS[weights]
    return Recipe(er_p=p, k=1.0, weights=weights, scale=scale, gain=gain, seed=seed)


def source_config(config: Config, recipe: Recipe, target: Target, plan: Plan) -> Config:
    """The config of the source network, on the target's data: its steps with a constant and layer 0, the plan's widths."""
    model = "mlp_constant" if MLP.fullmatch(target.source) else f"chain:{target.source}"
    task = TaskSettings(dataset=config.task.dataset, image_size=config.task.image_size, validation=config.task.validation,
                        model=model, widths=plan.widths)
    return replace(config, source=recipe, task=task)


def build_ticket(laboratory: Laboratory, config: Config, trained: Trained, plan: Plan, recipe: Recipe,
                 threads: int) -> Built:
    """Build the ticket, put it together as any ticket, and measure it as `eval` does."""
    began = time.process_time()
    own = source_config(config, recipe, trained.target, plan)
    with torch.device("meta"):
        layers: list[Layer] = find_layers(laboratory.models[own.task.model](laboratory.data(own).image,
                                                                            laboratory.data(own).classes, plan.widths))
    found = construct(trained.target, plan, recipe, layers, recipe.densities(layers), threads)
    if not all(mask.any() for mask in found.selected):
        raise UsageError("the ticket would have a layer without an edge, so little of the target matters at this epsilon: "
                         "give a smaller one")
    ticket = assemble(recipe, found.sources, found.selected, found.spare, {})
    seconds = time.process_time() - began
    net = ticket.apply(build(laboratory, own)).eval()
    ticket = replace(ticket, about=_about(laboratory, own, net, found, target_hash(trained)))
    if plan.entries(trained.target) >= LARGE and _density(ticket) <= SPARSE:
        net = ticket.apply(build(laboratory, own), sparse=True).eval()
    gaps = _gaps(laboratory, own, trained, net, found.multiple)
    return Built(plan, found, ticket, gaps, ROUNDING * trained.largest, seconds)


def _density(ticket: Ticket) -> float:
    """Kept edges over all weights."""
    return sum(layer.kept for layer in ticket.layers) / sum(layer.spec.entries for layer in ticket.layers)


def _about(laboratory: Laboratory, own: Config, net: nn.Module, found: Construction, target: str) -> dict[str, object]:
    """What a run records, with the accuracy as `eval` measures it; and what the ticket computes a multiple of, by its hash."""
    data = laboratory.data(own)
    return {**about_run(own, data, _accuracy(laboratory, data, net), "fp32", Normalise(data.train[0])),
            "built": {"multiple": found.multiple, "guaranteed": found.guaranteed, "target": target}}


def _gaps(laboratory: Laboratory, own: Config, trained: Trained, net: nn.Module, multiple: float) -> dict[str, Gap]:
    """|f_T - f_P| on the data and all over the domain, as float32 networks compute them."""
    target = trained.target
    net.requires_grad_(False), trained.net.requires_grad_(False)

    def off(images: torch.Tensor) -> torch.Tensor:
        return (net(images) / multiple - trained.net(images.clone())).abs()  # a copy: a network may change its input in place

    return measure_gaps(off, _inputs(laboratory, own), target.low, target.high, own.source.seed, laboratory.device)


def search_ticket(laboratory: Laboratory, config: Config, trained: Trained, built: Built, epochs: int,
                  on_epoch: Callable[[Metrics], None] = lambda metrics: None) -> Found:
    """Edge-popup in the same source (the same S_ER and weights), keeping as many edges as the built ticket (up to one a
    layer), but the same share of each layer.

    The logits of such a source are some thousand, so its loss is taken of logits divided by their deviation at the start.
    """
    began = time.process_time()
    own = source_config(config, built.ticket.recipe, trained.target, built.plan).replace(epochs=epochs)
    net, data = build(laboratory, own), laboratory.data(own)
    attach_recipe(net, own.source, SearchSettings())
    with torch.no_grad():
        images = Normalise(data.train[0])(data.train[0][:EVALUATION_BATCH]).to(laboratory.device)
        deviation = float(net(images).std()) or 1.0
    hook = net.register_forward_hook(lambda module, inputs, logits: logits / deviation)
    outcome = fit(net, data.train, data.test, own, on_epoch)
    hook.remove()
    return Found(extract(net), outcome.test_accuracy, time.process_time() - began)


def plan_for(trained: Trained, p: float, epsilon: float, tolerance: float, copies: int, most: int,
             weights: str) -> Plan:
    """The plan, or a UsageError if it cannot be done or its source has more than `most` weights."""
    plan = make_plan(trained.target, p, epsilon, tolerance, copies, weights)
    entries = plan.entries(trained.target)
    if entries > most:
        raise UsageError(f"the target is too large: at p = {p:g} its source has widths {', '.join(map(str, plan.widths))} "
                         f"and {entries:,} weights, more than --most-weights {most:,}; raise it, p or epsilon, or take a "
                         "smaller target")
    return plan

"""What `prove` does: the ticket built for a target in one fixed ER source, and what is known of how near it is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt

import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config, TaskSettings
from popup.lab.measure import ACCURACY
from popup.lab.runs.about import about_run
from popup.lab.runs.gaps import Gap, measure_gaps
from popup.lab.runs.in_parts import InParts
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.lab.runs.targets import Trained, accuracy_of, inputs_of, normalisation, target_hash
from popup.source.gains import EVERYWHERE, as_one
from popup.source.layers import Layer, find_layers
from popup.source.recipe import Recipe
from popup.theory.construction import Construction, construct
from popup.theory.exact import make_exact_plan
from popup.theory.plan import Plan, make_plan
from popup.theory.target import Target
from popup.theory.wish import Wish
from popup.ticket.assembled import assemble
from popup.ticket.ticket import Ticket

MLP = re.compile("flatten-one-linear(-relu-linear)+")
WEIGHTS = {"uniform": ("unit", 1 / sqrt(3)), "kaiming_normal": ("edges", sqrt(2)),  # scale and gain; uniform: U[-1, 1]
           "grid": ("unit", 15.0)}                                                # and grid: whole numbers
LARGE, SPARSE = 1_000_000, 0.1  # weights of a source, and density of a ticket, from which gaps are measured on kept edges alone
HUGE = 50_000_000               # weights from which no dense network is made, whatever the density
WORK = 1 << 34                  # kept edges times inputs that are looked at of one kind: of larger tickets the first inputs
ROUNDING = 1e-5  # of the largest output: what float32 may add to a gap
PROVED, TESTED, MISSED, BROKEN = "proved", "tested", "missed", "broken"


@dataclass(frozen=True)
class Built:
    """A ticket that was built: its construction, its accuracy in percent, its gaps by name of the inputs, what rounding may
    add to them, CPU seconds. Before it is measured it has no gaps and no accuracy."""

    plan: Plan
    construction: Construction
    ticket: Ticket
    seconds: float
    gaps: dict[str, Gap] = field(default_factory=dict)
    rounding: float = 0.0

    @property
    def accuracy(self) -> float:
        return self.ticket.about["test_accuracy"]

    @property
    def largest_gap(self) -> float:
        return max(gap.largest for gap in self.gaps.values())

    def verdict(self, wish: Wish) -> str:
        """Proved: the certain bound, of the whole domain, is within epsilon. Tested: no input was found where the gap is
        above it. Missed: one was, be it by rounding alone, or what was to be proved is not. Broken: a gap is above what is
        certain, as none can be."""
        certain = self.construction.guaranteed
        if self.largest_gap > certain + self.rounding:
            return BROKEN
        if not wish.promised:
            return TESTED
        if self.largest_gap > wish.epsilon:
            return MISSED
        if certain <= wish.epsilon:
            return PROVED
        return MISSED if wish.certain else TESTED


def source_recipe(weights: str, p: float, seed: int) -> Recipe:
    """The source of theory: ER(p), one seed, weights of `weights` in the scale of WEIGHTS, which no k changes."""
    scale, gain = WEIGHTS[weights]
    return Recipe(er_p=p, k=1.0, weights=weights, scale=scale, gain=gain, seed=seed)


def with_gains(recipe: Recipe, plan: Plan, layers: Sequence[Layer]) -> Recipe:
    """The recipe with the plan's sizes of weights, layer for layer, if it has any."""
    if not plan.gains:
        return recipe
    usual = float(recipe.gain)
    return replace(recipe, gain=as_one({EVERYWHERE: usual, **{layer.name: usual * size for layer, size in
                                                               zip(layers, plan.gains, strict=True)}}))


def source_config(config: Config, recipe: Recipe, target: Target, plan: Plan) -> Config:
    """The config of the source network, on the target's data: its steps with a constant and layer 0, the plan's widths."""
    words = target.source(plan.doubled)
    model = "mlp_constant" if MLP.fullmatch(words) else f"chain:{words}"
    task = TaskSettings(dataset=config.task.dataset, image_size=config.task.image_size, validation=config.task.validation,
                        model=model, widths=plan.widths)
    return replace(config, source=recipe, task=task)


def build_ticket(laboratory: Laboratory, config: Config, trained: Trained, plan: Plan, recipe: Recipe,
                 threads: int) -> Built:
    """Build the ticket, and put it together as any ticket; it is not measured yet."""
    began = time.process_time()
    own = source_config(config, recipe, trained.target, plan)
    layers: list[Layer] = find_layers(_outline(laboratory, own))
    recipe = with_gains(recipe, plan, layers)
    own = replace(own, source=recipe)
    goal, size = trained.whole or (trained.target, 1.0)
    found = construct(goal, plan, recipe, layers, recipe.densities(layers), threads)
    found = replace(found, multiple=found.multiple * size, guaranteed=found.guaranteed / size)
    if not all(layer.codes.any() for layer in found.layers):
        raise UsageError("the ticket would have a layer without an edge, so little of the target matters at this epsilon: "
                         "give a smaller one")
    data = laboratory.data(own)
    about = about_run(own, data, {ACCURACY.column: 0.0}, "fp32", normalisation(laboratory, own))
    del about["test_accuracy"]  # it is not known yet
    built = {"multiple": found.multiple, "guaranteed": found.guaranteed, "target": target_hash(trained)}
    ticket = assemble(recipe, found.layers, found.spare, {**about, "built": built})
    return Built(plan, found, ticket, time.process_time() - began)


def _outline(laboratory: Laboratory, own: Config) -> nn.Module:
    """The source network without memory."""
    data = laboratory.data(own)
    with torch.device("meta"):
        return laboratory.models[own.task.model](data.image, data.classes, own.task.widths)


def measure_ticket(laboratory: Laboratory, config: Config, trained: Trained, built: Built) -> Built:
    """Its accuracy, as `eval` measures it, and its gaps."""
    own = source_config(config, built.ticket.recipe, trained.target, built.plan)
    entries, kept = sum(layer.spec.entries for layer in built.ticket.layers), sum(layer.kept for layer in built.ticket.layers)
    few = entries >= LARGE and kept <= SPARSE * entries
    sparse: nn.Module | None = None
    if few or entries >= HUGE:
        sparse = built.ticket.apply(_outline(laboratory, own), sparse=True).to(laboratory.device).eval()
        sparse = InParts(sparse, torch.get_num_threads())
    net = sparse if sparse is not None and entries >= HUGE else built.ticket.apply(build(laboratory, own)).eval()
    ticket = replace(built.ticket, about={**built.ticket.about, "test_accuracy": accuracy_of(laboratory, own, net)})
    net = net if sparse is None else sparse
    gaps = measure_gaps(_off(trained, net, built.construction.multiple), inputs_of(laboratory, own), trained.target.low,
                        trained.target.high, own.source.seed, laboratory.device, trained.whole is not None, max(1, WORK // kept))
    return replace(built, ticket=ticket, gaps=gaps, rounding=ROUNDING * trained.largest)


def _off(trained: Trained, net: nn.Module, multiple: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """|f_T - f_P| of images, as float32 networks compute them."""
    for one in (net, trained.net):
        one.requires_grad_(False)

    def off(images: torch.Tensor) -> torch.Tensor:
        return (net(images) / multiple - trained.net(images.clone())).abs()  # a copy: a network may change its input in place

    return off


def plan_for(trained: Trained, p: float, wish: Wish, most: int) -> Plan:
    """The plan, or a UsageError if it cannot be done or its source has more than `most` weights."""
    plan = make_exact_plan(trained.whole[0], p, wish) if trained.whole else make_plan(trained.target, p, wish)
    check_size(plan, trained.target, p, most)
    return plan


def check_size(plan: Plan, target: Target, p: float, most: int) -> None:
    """A UsageError if the plan's source has more than `most` weights."""
    if (entries := plan.entries(target)) > most:
        raise UsageError(f"the target is too large: at p = {p:g} its source has widths {', '.join(map(str, plan.widths))} "
                         f"and {entries:,} weights, more than --most-weights {most:,}; raise it (some {BYTES * p:.2g} bytes a "
                         "weight), p or epsilon, or take a smaller target")


BYTES = 12.0  # of memory an edge at the peak, the whole process: 784-500-10 at p = 0.9 took 2.5 GB for 223 million edges

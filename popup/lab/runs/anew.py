"""Whether a user's function builds the same network at each call, as another object: a search needs one, its proof one more."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.foreign import FAULTS
from popup.lab.identity import DRAWN, HOLDS
from popup.lab.inputs import noise
from popup.lab.networks import is_own, without_numbers
from popup.lab.parts import attributes
from popup.lab.randomness import has_own_draws, seeded
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import BuiltAnew, Laboratory
from popup.lab.runs.plain import build, identity, unmasked
from popup.source.modes import in_mode
from popup.ticket.hashes import hash_tensor

Make = Callable[[Config], nn.Module]  # builds the plain network of a config
OTHERWISE = "let it draw by torch's, numpy's or Python's own generator, which popup seeds"


def check_anew(laboratory: Laboratory, config: Config) -> None:
    """A UsageError unless the function that a config's model names builds the same network twice. It is called three times for
    that, once from another seed, and once a task; the networks of this project are not tried. The last is, without numbers, the
    task's outline."""
    task = replace(config.task, role=TICKET)
    if not is_own(task.model) or task in laboratory.built_anew:
        return
    data = laboratory.data(config)
    laboratory.built_anew[task], last = built_anew(partial(build, laboratory), config, data.image, data.classes)
    laboratory.outlines[task] = without_numbers(last)


def built_anew(make: Make, config: Config, image: Sequence[int], classes: int) -> tuple[BuiltAnew, nn.Module]:
    """What differs of the networks that `make` builds for such images, and the last of them; a UsageError if it is what they
    compute."""
    model, first = config.task.model, make(config)
    numbers, found = _numbers(first, config), identity(first, config)
    known = {id(part): weakref.ref(part) for part in _parts(first).values()}
    del first  # of what the function does not keep one is in memory at a time
    elsewhere = config.replace(seed=int(config.source.seed == 0))
    of_another_seed = identity(make(elsewhere), elsewhere)
    if any(part() is not None for part in known.values()):  # of a ring, or kept
        gc.collect()
    second = make(config)
    _check_shared(model, known, second)
    again, inputs = identity(second, config), noise(image, classes, 2)
    varying = _other(found, again)
    if (other := varying - numbers.keys()) and (
            found.keys() != again.keys() or _is_generator(second, other) or not _alike(make(config), second, inputs)):
        _refuse(model, min(other), second)
    _check_drawn(model, _other(numbers, _numbers(second, config)))
    return BuiltAnew(varying, (_other(found, of_another_seed) | numbers.keys()) - varying), second


def _other(found: Mapping[str, str], again: Mapping[str, str]) -> frozenset[str]:
    """The names of what is not the same in both."""
    return frozenset(name for name in found.keys() | again.keys() if found.get(name) != again.get(name))


def _is_generator(net: nn.Module, names: Collection[str]) -> bool:
    """Whether one of the `names` is of a generator, whose draws no seed repeats then."""
    return any(has_own_draws(end) for each in attributes(net) if f"{each.path} {each.name} {HOLDS}" in names
               for _, end in each.ends())


def _check_shared(model: str, known: Mapping[int, weakref.ref[nn.Module | nn.Parameter]], net: nn.Module) -> None:
    """A UsageError if `net` has parts that are `known`: of an earlier call."""
    shared = next((name for name, part in _parts(net).items() if id(part) in known and known[id(part)]() is part), None)
    if shared is not None:
        what = f"networks that share {shared}" if shared else "the same network"
        raise UsageError(f"model {model!r} returns {what} at each call, and every run needs its own: build it inside the "
                         "function, or return copy.deepcopy of it")


def _check_drawn(model: str, other: Collection[str]) -> None:
    """A UsageError if there are parameters with `other` numbers at each call: no run could go on from its checkpoint."""
    if other:
        name = min(other).removesuffix(f" {DRAWN}")
        raise UsageError(f"the parameter {name} of model {model!r}, which is not masked, is another at "
                         f"each call, also from one seed: {OTHERWISE}")


def _refuse(model: str, other: str, net: nn.Module) -> NoReturn:
    """A UsageError for what of `net` is `other` at each call, and changes what is computed."""
    if other.endswith(HOLDS):
        name = ".".join(other.removesuffix(HOLDS).split())
        buffer, remedy = (("buffer", "leave out persistent=False") if name in dict(net.named_buffers()) else
                          ("attribute", "give its generator a seed, or make it a buffer"))
        raise UsageError(f"the {buffer} {name} of model {model!r} is another at each call, also from one seed, and is not in the "
                         f"state, so that no ticket could hold it: {remedy}, or {OTHERWISE}")
    raise UsageError(f"model {model!r} builds another network at each call, also from one seed ({other}): {OTHERWISE}")


@torch.no_grad()
def _alike(another: nn.Module, net: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether one more network with the state of `net` computes the same of `inputs`: what differs may be a name, or memory that
    nobody has filled."""
    try:
        another.load_state_dict(net.state_dict())
    except RuntimeError:  # of other shapes
        return False
    inputs = inputs.to(next((parameter.device for parameter in net.parameters()), inputs.device))
    return torch.equal(*(in_mode(each, False)(inputs.clone()) for each in (net, another))) and _trains_alike(net, another, inputs)


def _trains_alike(net: nn.Module, another: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether both give the same in training, with the same draws; nothing is known where it fails for so few inputs."""
    outputs = []
    for each in (net, another):
        with seeded(0, "training", inputs.device):
            try:
                given = in_mode(each, True)(inputs.clone())
                outputs.append([part for part in tree_leaves(given) if isinstance(part, torch.Tensor)])
            except FAULTS:
                return True
    return len(outputs[0]) == len(outputs[1]) and all(map(torch.equal, *outputs))


def _parts(net: nn.Module) -> dict[str, nn.Module | nn.Parameter]:
    """The modules that have a state, the whole first, and the parameters, by name."""
    modules = {name: module for name, module in net.named_modules() if module.state_dict()}
    return {**modules, **dict(net.named_parameters())}


def _numbers(net: nn.Module, config: Config) -> dict[str, str]:
    """The hashes of the parameters that the source of `config` does not draw, by name."""
    return {f"{name} {DRAWN}": hash_tensor(parameter) for name, parameter in unmasked(net, config)}

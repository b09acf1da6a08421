"""Whether a user's function builds the same network at each call, as another object: a search needs one, its proof one more."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NoReturn

import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.identity import HOLDS, described, held
from popup.lab.inputs import noise
from popup.lab.networks import is_own, without_numbers
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import BuiltAnew, Laboratory
from popup.lab.runs.plain import build
from popup.ticket.hashes import hash_tensor

OTHERWISE = "let it draw by torch's, numpy's or Python's own generator, which popup seeds"
DRAWN = " drawn"  # behind the name of a parameter


def check_anew(laboratory: Laboratory, config: Config) -> None:
    """A UsageError unless the function that a config's model names builds the same network twice. It is called three times for
    that, once from another seed, and once a task; the networks of this project are not tried. The last is, without numbers, the
    task's outline."""
    task = replace(config.task, role=TICKET)
    if not is_own(task.model) or task in laboratory.built_anew:
        return
    first = build(laboratory, config)
    drawn = _unmasked(first, config)
    found = _identity(first) | drawn
    known = {id(part): weakref.ref(part) for part in _parts(first).values()}
    del first  # of what the function does not keep one is in memory at a time
    elsewhere = _identity(build(laboratory, config.replace(seed=int(config.source.seed == 0))))
    gc.collect()
    second = build(laboratory, config)
    _check_shared(task.model, known, second)
    again = _identity(second) | _unmasked(second, config)
    varying = frozenset(name for name in found.keys() | again.keys() if found.get(name) != again.get(name))
    if (other := varying - drawn.keys()) and (found.keys() != again.keys() or not _alike(laboratory, config, second)):
        _refuse(task.model, min(other))
    _check_drawn(task.model, varying & drawn.keys())
    by_seed = any(found.get(name) != elsewhere.get(name) for name in (found.keys() | elsewhere.keys()) - varying - drawn.keys())
    laboratory.built_anew[task] = BuiltAnew(varying, by_seed)
    laboratory.outlines[task] = without_numbers(second)


def _identity(net: nn.Module) -> dict[str, str]:
    return described(net) | held(net)


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
        raise UsageError(f"the parameter {min(other).removesuffix(DRAWN)} of model {model!r}, which is not masked, is another at "
                         f"each call, also from one seed: {OTHERWISE}")


def _refuse(model: str, other: str) -> NoReturn:
    """A UsageError for what is `other` at each call, and changes what is computed."""
    if other.endswith(HOLDS):
        name = other.removesuffix(HOLDS)
        raise UsageError(f"the buffer {name} of model {model!r} is another at each call, also from one seed, and is not in the "
                         f"state, so that no ticket could hold it: leave out persistent=False, or {OTHERWISE}")
    raise UsageError(f"model {model!r} builds another network at each call, also from one seed ({other}): {OTHERWISE}")


@torch.no_grad()
def _alike(laboratory: Laboratory, config: Config, net: nn.Module) -> bool:
    """Whether one more network with the state of `net` computes the same: what differs may be a name, or memory that nobody
    has filled."""
    data, another = laboratory.data(config), build(laboratory, config)
    try:
        another.load_state_dict(net.state_dict())
    except RuntimeError:  # of other shapes
        return False
    inputs = noise(data.image, data.classes, 2).to(laboratory.device)
    return torch.equal(net.eval()(inputs), another.eval()(inputs))


def _parts(net: nn.Module) -> dict[str, nn.Module | nn.Parameter]:
    """The modules that have a state, the whole first, and the parameters, by name."""
    modules = {name: module for name, module in net.named_modules() if module.state_dict()}
    return {**modules, **dict(net.named_parameters())}


def _unmasked(net: nn.Module, config: Config) -> dict[str, str]:
    """The hashes of the parameters that the source of `config` does not draw, by name."""
    masked = {name for layer in config.source.layers(net) for name in layer.names}
    return {f"{name}{DRAWN}": hash_tensor(parameter) for name, parameter in net.named_parameters() if name not in masked}

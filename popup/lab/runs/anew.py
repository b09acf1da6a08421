"""Whether a user's function builds the same network at each call, as another object: a search needs one, its proof one more."""

from __future__ import annotations

import weakref
from dataclasses import replace

import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.inputs import noise
from popup.lab.networks import fingerprint, is_own
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import build
from popup.ticket.hashes import hash_tensor

OTHERWISE = "let it draw by torch's, numpy's or Python's own generator, which popup seeds"


def check_anew(laboratory: Laboratory, config: Config) -> None:
    """A UsageError unless the function that a config's model names builds the same network twice. It is called twice for that,
    once a task; the networks of this project are not tried."""
    task = replace(config.task, role=TICKET)
    if not is_own(task.model) or task in laboratory.built_anew:
        return
    first = build(laboratory, config)
    parts = _parts(first)
    said, drawn = fingerprint(first), _unsaved(first)
    known = {id(part): weakref.ref(part) for part in parts.values()}
    del first, parts  # of what the function does not keep one is in memory at a time
    second = build(laboratory, config)
    shared = next((name for name, part in _parts(second).items() if id(part) in known and known[id(part)]() is part), None)
    if shared is not None:
        what = f"networks that share {shared}" if shared else "the same network"
        raise UsageError(f"model {task.model!r} returns {what} at each call, and every run needs its own: build it inside the "
                         "function, or return copy.deepcopy of it")
    if fingerprint(second) != said:
        raise UsageError(f"model {task.model!r} builds another network at each call, also from one seed: {OTHERWISE}")
    again = _unsaved(second)
    other = next((name for name in drawn if again.get(name) != drawn[name]), None)
    if other is not None and not _alike(laboratory, config, second):
        raise UsageError(f"the buffer {other} of model {task.model!r} is another at each call, also from one seed, and is not in "
                         f"the state, so that no ticket could hold it: leave out persistent=False, or {OTHERWISE}")
    laboratory.built_anew.add(task)


@torch.no_grad()
def _alike(laboratory: Laboratory, config: Config, net: nn.Module) -> bool:
    """Whether one more network with the state of `net` computes the same: what differs may be memory that nobody has filled."""
    data, another = laboratory.data(config), build(laboratory, config)
    another.load_state_dict(net.state_dict())
    inputs = noise(data.image, data.classes, 2).to(laboratory.device)
    return torch.equal(net.eval()(inputs), another.eval()(inputs))


def _parts(net: nn.Module) -> dict[str, nn.Module | nn.Parameter]:
    """The modules that have a state, the whole first, and the parameters, by name."""
    modules = {name: module for name, module in net.named_modules() if module.state_dict()}
    return {**modules, **dict(net.named_parameters())}


def _unsaved(net: nn.Module) -> dict[str, str]:
    """The hashes of the dense buffers that are not in the state, by name."""
    state = net.state_dict().keys()
    return {name: hash_tensor(buffer) for name, buffer in net.named_buffers()
            if name not in state and buffer.layout is torch.strided and not (buffer.is_nested or buffer.is_meta)}

"""Writing a network's tensors in place, and making those of one that was built without memory. Everything is checked before the
first is written, so that a network is never half filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from popup.errors import UsageError
from popup.search.provenance import storage_of
from popup.source.layers import locate


@dataclass(frozen=True, eq=False)
class Write:
    """What is to stand in a tensor of the network. `target` is the same memory, out of autograd; `take`: what a module is given
    that makes its part of the state anew each time."""

    name: str
    target: torch.Tensor
    source: torch.Tensor
    take: Callable[[Any], None] | None = None


def check_network(net: nn.Module, trainable: bool = False) -> None:
    """A UsageError for a tensor of `net` that is lazy, cannot be frozen or, if everything is to be `trainable`, cannot learn."""
    if trainable and torch.is_inference_mode_enabled():
        raise UsageError("inference mode is on, and what is made in it never learns: apply a ticket to be trained outside of "
                         "torch.inference_mode")
    kind = type(net).__name__
    if isinstance(net, torch.jit.ScriptModule):
        raise UsageError(f"{kind} is a network that torch.jit made: fill the one that it was made of, and make it anew")
    for name, tensor in _tensors(net):
        if is_lazy(tensor):
            raise UsageError(f"{name} of {kind} is lazy and has no shape yet: run the network once before it is filled")
        if isinstance(tensor, nn.Parameter) and not tensor.is_leaf:
            raise UsageError(f"{name} of {kind} was computed by autograd, and so can neither be frozen nor learn: make it a "
                             "parameter anew, of its detach()")
        if trainable and tensor.is_inference():
            raise UsageError(f"{name} of {kind} was made in inference mode, and never learns: build the network outside of "
                             "torch.inference_mode")


def planned(net: nn.Module, state: Mapping[str, torch.Tensor], replaced: frozenset[str] = frozenset()) -> list[Write]:
    """What is to be written that `net` is as `state` has it; nothing is yet. A UsageError for a tensor that cannot be written to,
    or be read, and for one that is without memory (on "meta") and neither in `state` nor in a layer that is `replaced`."""
    for name, tensor in _tensors(net):
        if tensor.is_meta and name not in state and name not in replaced:
            raise UsageError(f"{name} of {type(net).__name__} has no data (it is on 'meta'), and no ticket holds it: build the "
                             "network on a device")
    own = dict(_tensors(net))
    writes = [_write(net, own, name, tensor, state[name]) for name, tensor in net.state_dict().items() if name in state]
    for write in writes:
        _check(write, type(net).__name__)
    _check_shared(writes, type(net).__name__)
    return writes


def _write(net: nn.Module, own: Mapping[str, torch.Tensor], name: str, held: torch.Tensor, source: torch.Tensor) -> Write:
    """To the network's `own` tensor of that name: what is `held` by its state_dict may be a copy. A UsageError for a copy of no
    tensor that the network has."""
    if name in own:
        return Write(name, own[name].detach(), source)
    path, _, last = name.rpartition(".")
    if last == "_extra_state":
        return Write(name, held, source, net.get_submodule(path).set_extra_state)
    if storage_of(held) not in {storage_of(tensor) for tensor in own.values()}:
        raise UsageError(f"{name} is no parameter or buffer of {type(net).__name__}, whose state_dict makes it: make it a "
                         "buffer, by register_buffer")
    return Write(name, held, source)


def _tensors(net: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All of them by all their names."""
    yield from net.named_parameters(remove_duplicate=False)
    yield from net.named_buffers(remove_duplicate=False)


def _check(write: Write, network: str) -> None:
    if write.source.layout is not torch.strided or write.source.is_meta:
        what = "has no data (it is on 'meta')" if write.source.is_meta else f"is {write.source.layout}, not dense,"
        raise UsageError(f"{write.name} {what} in what {network} is to hold: give its values as a dense tensor")
    if write.target.layout is not torch.strided:
        raise UsageError(f"{write.name} of {network} is {write.target.layout}, which nothing dense can be written to: make it a "
                         "dense tensor")
    if _overlaps(write.target):
        raise UsageError(f"{write.name} of {network} has several entries in one place of memory (it was expanded), so that they "
                         "cannot differ: give it memory of its own by clone()")


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether entries share memory: an axis whose step is no longer than what those of shorter steps reach over."""
    reached = 0
    for step, side in sorted((step, side) for step, side in zip(tensor.stride(), tensor.shape, strict=True) if side > 1):
        if step <= reached:
            return bool(tensor.numel())
        reached += step * (side - 1)
    return False


def _check_shared(writes: Sequence[Write], network: str) -> None:
    """A UsageError for a tensor that has memory in common with another that is to hold other values: the last would stand in
    both. Those that a network ties and the ticket does too hold the same."""
    groups: dict[object, list[Write]] = {}
    for write in writes:
        groups.setdefault((storage_of(write.target), write.target.dtype), []).append(write)
    for group in (group for group in groups.values() if len(group) > 1):
        first = group[0].target
        memory = torch.empty(first.untyped_storage().nbytes() // first.element_size(), dtype=first.dtype, device="cpu")
        places = [memory.as_strided(write.target.shape, write.target.stride(), write.target.storage_offset()) for write in group]
        for place, write in zip(places, group, strict=True):
            place.copy_(write.source)
        for place, write in zip(places, group, strict=True):
            wanted = write.source.to(place)
            if not bool(((place == wanted) | ((place != place) & (wanted != wanted))).all()):  # NaN is what it is
                others = ", ".join(other.name for other in group if other is not write)
                raise UsageError(f"{write.name} of {network} shares its memory with {others:.200}, and is to hold other values: "
                                 "give each a tensor of its own")


@torch.no_grad()
def provide(net: nn.Module, writes: Sequence[Write]) -> None:
    """Make what is on "meta", on the CPU, with its values; what is tied stays tied."""
    made: dict[int, torch.Tensor] = {}
    for module, attribute, write in [(*locate(net, write.name), write) for write in writes if write.target.is_meta]:
        table: dict[str, Any] = module._parameters if attribute in module._parameters else module._buffers
        old = table[attribute]
        if old is None or not old.is_meta:  # of a module that has several names
            continue
        if id(old) not in made:
            values = write.source.to("cpu", old.dtype, copy=True)
            made[id(old)] = nn.Parameter(values, requires_grad=False) if isinstance(old, nn.Parameter) else values
        table[attribute] = made[id(old)]


@torch.no_grad()
def write_all(writes: Sequence[Write]) -> None:
    """Write what has memory, in the types of the network."""
    for write in writes:
        if not write.target.is_meta:
            write.target.copy_(write.source)
        if write.take is not None:
            write.take(write.source.to(write.target))


def fill(net: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Write `state` to the parameters and buffers of `net`, in their types; what is on "meta" is made, on the CPU.

    Not by load_state_dict: some modules (torchvision's MNASNet) change themselves in it.
    """
    writes = planned(net, state)
    provide(net, writes)
    write_all(writes)

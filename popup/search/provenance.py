"""Where a tensor comes from: layers' weights, the network's inputs, or neither. It is known by its memory, so views count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

COPIES = {"clone", "cat", "stack", "flip", "roll", "repeat", "index_select", "index", "gather", "constant_pad_nd"}
SCALINGS = {"mul", "div", "neg"}
SHAPED = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros", "new_ones",
          "new_full", "new_empty_strided"}  # of a tensor's shape, not of its values


class Faith(Enum):
    """What is left of a weight: its own entries, these times something, or what somebody computed of them."""

    EXACT = 0
    SCALED = 1
    COMPUTED = 2


class Data(Enum):
    """What depends on the network's inputs, and what a product of weights with constants has made."""

    LIVE = 0
    DERIVED = 1


@dataclass(frozen=True)
class Weight:
    """A memory that holds entries of `layers`. `shadow`, flat, has at each place what ought to stand there."""

    layers: frozenset[str]
    faith: Faith
    shadow: torch.Tensor | None  # None without data, on "meta", and of what was computed
    own: bool = False            # a layer's own memory, not a copy
    maker: str = ""              # of what was computed: the operation that did

    def expected(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What ought to stand in `tensor`, a view of this memory."""
        if self.shadow is None or self.shadow.dtype != tensor.dtype:
            return None
        return self.shadow.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def shown_by(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` holds what it ought to: entry by entry, or where it is scaled, zeros where zeros ought to be."""
        expected = self.expected(tensor)
        if expected is None:
            return tensor.is_meta
        if self.faith is Faith.SCALED:
            return torch.equal(tensor != 0, expected != 0)
        return torch.equal(tensor, expected)


class Origins:
    """What is known of each memory. It is held weakly: what is freed and used again is unknown again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Weight | Data]] = {}

    def of(self, tensor: torch.Tensor) -> Weight | Data | None:
        """Where the memory of `tensor` comes from; None: from neither weights nor inputs."""
        place = storage_of(tensor)
        found = self._known.get(place) if place is not None else None
        return None if found is None else found[1]

    def put(self, tensor: torch.Tensor, origin: Weight | Data) -> None:
        """The memory of `tensor` comes from `origin` from now on."""
        place = storage_of(tensor)
        if place is not None:
            self._known[place] = StorageWeakRef(tensor.untyped_storage()), origin

    def put_layer(self, name: str, tensor: torch.Tensor, expected: torch.Tensor) -> None:
        """`tensor` is the weight of layer `name`, which ought to hold `expected`; another layer may lie in the same memory."""
        before = self.of(tensor)
        before = before if isinstance(before, Weight) and before.own else None
        shadow = None
        if not tensor.is_meta:
            shadow = before.shadow if before and before.shadow is not None else _whole(tensor).clone()
            shadow.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(expected)
        self.put(tensor, Weight(frozenset({name}) | (before.layers if before else frozenset()), Faith.EXACT, shadow, own=True))


def storage_of(tensor: torch.Tensor) -> int | None:
    """What tells the memory of a tensor from another's while both are alive; None: it has none of its own (sparse, packed)."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def tensors_in(found: object) -> Iterator[torch.Tensor]:
    """The tensors in what an operation takes or gives, or in what a network does."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict):
        yield from (tensor for part in found.values() for tensor in tensors_in(part))
    elif isinstance(found, (list, tuple, set, frozenset)):
        yield from (tensor for part in found for tensor in tensors_in(part))


def derive(func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], origins: Origins,
           out: torch.Tensor) -> Weight | None:
    """What `out` holds of the weights among the arguments of an operation in which no input takes part; None: nothing."""
    known = [(tensor, origins.of(tensor)) for tensor in tensors_in((args, kwargs))]
    weights = [origin for _, origin in known if isinstance(origin, Weight)]
    layers = frozenset().union(*(origin.layers for origin in weights))
    again = all(origin.faith is Faith.COMPUTED for origin in weights)
    computed = Weight(layers, Faith.COMPUTED, None, maker=weights[0].maker if again else name)
    if name in SHAPED:
        return None
    if name in SCALINGS:
        faithful = [(tensor, origin) for tensor, origin in known
                    if isinstance(origin, Weight) and origin.faith is not Faith.COMPUTED]
        if len(faithful) != 1 or (name == "div" and faithful[0][0] is not args[0]):
            return computed
        return Weight(layers, Faith.SCALED, _beside(out, faithful[0][1].expected(faithful[0][0])))
    copies = (name in COPIES or name.endswith("_copy")) and not _fills(name, args)
    if not copies or any(o is Data.DERIVED or (isinstance(o, Weight) and o.faith is Faith.COMPUTED) for _, o in known):
        return computed
    faith = Faith.SCALED if any(origin.faith is Faith.SCALED for origin in weights) else Faith.EXACT
    return Weight(layers, faith, None if out.is_meta else _again(func, args, kwargs, origins, out))


def _fills(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an operation pads with another number than 0."""
    return name == "constant_pad_nd" and len(args) > 2 and args[2] != 0


def _again(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], origins: Origins,
           out: torch.Tensor) -> torch.Tensor | None:
    """The shadow of `out`: the same operation done with what ought to stand in its arguments."""
    def swap(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            origin = origins.of(part)
            expected = origin.expected(part) if isinstance(origin, Weight) else None
            return part if expected is None else expected
        return type(part)(map(swap, part)) if type(part) in (list, tuple) else part
    return _beside(out, func(*map(swap, args), **{key: swap(part) for key, part in kwargs.items()}))


def _beside(out: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor | None:
    """A flat shadow for the memory of `out` that holds `values`, which may have to be expanded to its shape."""
    if values is None:
        return None
    shadow = torch.zeros_like(_whole(out))
    shadow.as_strided(out.shape, out.stride(), out.storage_offset()).copy_(values)
    return shadow


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole memory that `tensor` lies in, flat."""
    return tensor.detach().as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)

"""What a value consists of, down to its ends: so that what a module has is seen whatever it stands inside of."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from popup.lab.foreign import FAULTS
from popup.lab.randomness import GENERATORS
from popup.source.copying import TORCHS

SIMPLE = (bool, int, float, complex, str, type(None))
ENDS = (*SIMPLE, Enum, bytes, bytearray, range, set, frozenset, np.generic, torch.Tensor, torch.dtype, torch.layout,
        torch.memory_format, torch.device, *GENERATORS)
NUMBERS = "biufc"   # the kinds of arrays that are numbers
LONGEST = 10_000    # bits of a number that Python writes in digits
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
DEEPEST, MOST = 100, 100_000  # values inside one another, and in all, that are looked at; a list of numbers or texts is one


@dataclass(frozen=True)
class Attribute:
    """One that a module of a network has, and not each module of torch. `known`: the ids of what is the network's own anyhow."""

    path: str
    module: nn.Module
    name: str
    value: Any
    known: Collection[int]

    def ends(self) -> Iterator[tuple[str, Any]]:
        """What it consists of in the end, by the way to it."""
        return Parts(home_of(self.module), self.known).ends(self.value)


def attributes(net: nn.Module) -> Iterator[Attribute]:
    """Those of all modules of a network, and their hooks as one more. Its modules, parameters and buffers are known wherever they
    are named again."""
    known = {id(each) for each in (*net.modules(), *net.parameters(), *net.buffers())}
    for path, module in net.named_modules():
        yield from (Attribute(path, module, name, value, known) for name, value in vars(module).items() if name not in TORCHS)
        if hooks := _hooks(module):
            yield Attribute(path, module, "registered_hooks", hooks, known)


def _hooks(module: nn.Module) -> list[Any]:
    """Those on its forward passes that are none of popup's."""
    found = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return [hook for hook in found if not str(getattr(hook, "__module__", "")).startswith("popup.")]


def home_of(module: nn.Module) -> str:
    """The name of the file that a module's class is written in, masked or not."""
    return str(type_before_parametrizations(module).__module__)


class Parts:
    """What a value consists of. Objects of classes that stand in the file `home` consist of their attributes, of others only the
    class is told, as of what is `known` by its id."""

    def __init__(self, home: str, known: Collection[int] = ()) -> None:
        self.home, self.known, self.left = home, known, MOST
        self.met: dict[int, tuple[str, Any]] = {}  # the way to what has parts, and it itself, so that its id stays its own

    def ends(self, value: Any, way: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
        """Each value that consists of nothing more, and of each other one the number of its parts, by the way to it. What is met
        again is told by the way to it."""
        self.left -= 1
        if id(value) in self.known:
            yield way, type(value)
        elif id(value) in self.met:
            yield way, f"as {self.met[id(value)][0]}"
        elif self.left < 0 or depth > DEEPEST:
            yield way, ...
        elif (found := self._of(value)) is None:
            yield way, value
        else:
            if not isinstance(value, tuple):  # of which equal ones may be one
                self.met[id(value)] = way, value
            yield way, len(found)
            for name, part in found:
                yield from self.ends(part, f"{way}{name}", depth + 1)
                if self.left < 0:
                    return

    def _of(self, value: Any) -> list[tuple[str, Any]] | None:
        """The parts of a value, each with its name in it; None of an end."""
        try:  # what is asked may be a class of the user's
            if isinstance(value, ENDS) or is_numbers(value) or is_flat(value):
                return None
            return self._of_module(value) if isinstance(value, nn.Module) else self._of_object(value)
        except FAULTS:
            return None

    def _of_module(self, module: nn.Module) -> list[tuple[str, Any]]:
        """Of one that is no child of the network: what its state is made of, and its attributes, but not its mode."""
        own = {name: value for name, value in vars(module).items() if name not in TORCHS}
        return _named({"": type(module), **module._parameters, **module._buffers, **module._modules, **own})

    def _of_object(self, value: Any) -> list[tuple[str, Any]] | None:
        if isinstance(value, (list, tuple, deque)):
            return _numbered(value)
        if isinstance(value, Mapping):
            return _numbered(chain.from_iterable(value.items()))
        if isinstance(value, np.ndarray):
            return _numbered([list(value.shape), value.ravel().tolist()])
        if isinstance(value, slice):
            return _numbered([value.start, value.stop, value.step])
        if isinstance(value, functools.partial):
            return _numbered([value.func, value.args, value.keywords])
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
            return _of_method(value)
        if isinstance(value, types.FunctionType):
            return _of_function(value)
        if isinstance(value, functools._lru_cache_wrapper):
            return _numbered([value.__wrapped__])
        return _of_attributes(value) if self._is_looked_into(value) else None

    def _is_looked_into(self, value: Any) -> bool:
        """Whether an object consists of its attributes: not one of torch's own, behind which all of torch may stand."""
        if isinstance(value, type):
            return False
        own = type(value).__module__ == self.home != "" and self.home.partition(".")[0] != "torch"
        return own or isinstance(value, types.SimpleNamespace) or dataclasses.is_dataclass(value)


def is_numbers(value: Any) -> bool:
    """Whether it is an array of numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in NUMBERS


def is_flat(value: Any) -> bool:
    """Whether a list or mapping is of simple values alone, so that it is said as a whole."""
    if type(value) is dict:
        return all(map(_is_simple, value)) and all(map(_is_simple, value.values()))
    return type(value) in (list, tuple) and all(map(_is_simple, value))


def _is_simple(value: Any) -> bool:
    if type(value) is str:
        return not DEVICE.fullmatch(value)
    return type(value) in SIMPLE and not (type(value) is int and value.bit_length() > LONGEST)


def _named(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(f".{name}", part) for name, part in found.items()]


def _numbered(found: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"[{place}]", part) for place, part in enumerate(found)]


def _of_attributes(value: Any) -> list[tuple[str, Any]]:
    """Of an object, also of those that a class has places for (`__slots__`)."""
    slots = {name: getattr(value, name) for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)}
    return _named({"": type(value), **dict(sorted({**getattr(value, "__dict__", {}), **slots}.items()))})


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _of_method(method: Any) -> list[tuple[str, Any]] | None:
    """Of a user's its function and its object; of a generator's own the generator."""
    if isinstance(method, types.MethodType):
        return _numbered([method.__func__, method.__self__])
    return _numbered([method.__name__, method.__self__]) if isinstance(method.__self__, GENERATORS) else None


def _of_function(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Of one that is written in Python its name, its code, and the values that it has from where it was made."""
    cells = [_content(cell) for cell in function.__closure__ or ()]
    return _numbered([function.__qualname__, *_of_code(function.__code__), function.__defaults__, function.__kwdefaults__, cells])


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a name that is not bound yet
        return ...


def _of_code(code: types.CodeType) -> list[Any]:
    constants = [_of_code(part) if isinstance(part, types.CodeType) else part for part in code.co_consts]
    return [code.co_code, code.co_names, constants]

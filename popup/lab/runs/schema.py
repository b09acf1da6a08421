"""JSON that is read from disk, checked against a frozen dataclass before it is used: every value of its type and in its bounds.

Fields that the dataclass does not know (a later version's) are left out; fields with a default may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from math import inf, isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from popup.errors import MOST_COUNT, UsageError
from popup.files import MOST, read_regular
from popup.lab.text import printable

Count = Annotated[int, (0, 1 << 53)]         # what a float holds exactly
Positive = Annotated[int, (1, 1 << 53)]
Share = Annotated[float, (0.0, 1.0)]
Percent = Annotated[float, (0.0, 100.0)]
Bits = Annotated[float, (0.0, 1e12)]
Seconds = Annotated[float, (0.0, 1e12)]
Loss = Annotated[float, ()]                  # of a network that has diverged it is no number, or infinite
LONGEST_NAME = 1 << 14                       # letters
WHOLE = (-MOST_COUNT, MOST_COUNT)            # a seed may have some hundred bits


class Damaged(UsageError):
    """A file of a run does not hold what it should: the message names it and the field."""


def read_object(path: Path, kind: type, remedy: str, most: int = MOST) -> dict[str, Any]:
    """What the JSON file holds, as `kind` says. A Damaged for anything else, with the `remedy`; FileNotFoundError where there is
    none."""
    try:
        return fitted(kind, parsed(read_regular(path, most)))
    except ValueError as error:  # an IrregularFile is one
        raise Damaged(f"{_named(path, error)}: {remedy}") from None


def read_lines(path: Path, kind: type, remedy: str) -> list[dict[str, Any]]:
    """What each line of the file holds."""
    rows: list[dict[str, Any]] = []
    try:
        lines = read_regular(path).splitlines()
        for line in lines:
            rows.append(fitted(kind, parsed(line)))
    except ValueError as error:
        raise Damaged(f"{_named(path, error, f' (line {len(rows) + 1})')}: {remedy}") from None
    return rows


def _named(path: Path, error: ValueError, where: str = "") -> str:
    """The file and what is wrong with it, in one line."""
    said = printable(" ".join(str(error).split()), 300)
    return said if str(path) in said else f"{path} is damaged{where}: {said}"


def parsed(content: bytes) -> Any:
    """JSON as Python has it. A ValueError for what is none, and for what nests deeper than any record."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it nests too deep") from None


def fitted(kind: Any, value: Any, where: str = "") -> Any:
    """`value`, if it is of that kind, without the fields that a dataclass does not know. A ValueError that names the field."""
    origin, name = get_origin(kind), where or "it"
    if is_dataclass(kind):
        return _object(kind, value, where)
    if origin is Annotated:
        base, bounds = get_args(kind)
        return _number(base, value, name, bounds)
    if origin in (UnionType, Union):
        return None if value is None else fitted(_member([part for part in get_args(kind) if part is not NoneType], value), value,
                                                 where)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is {_told(value)}, not a list")
        return [fitted(get_args(kind)[0], item, f"{where}[{place}]") for place, item in enumerate(value)]
    if kind in (int, float):
        return _number(kind, value, name, WHOLE if kind is int else (-inf, inf))
    if type(value) is not kind:
        raise ValueError(f"{name} is {_told(value)}, not {'text' if kind is str else f'a {kind.__name__}'}")
    if kind is str and len(value) > LONGEST_NAME:
        raise ValueError(f"{name} has {len(value):,} letters: at most {LONGEST_NAME:,} are allowed")
    return value


def _member(kinds: Sequence[Any], value: Any) -> Any:
    """Which of the kinds a value is meant to be: text where text is one of them, else the first."""
    return str if isinstance(value, str) and str in kinds else kinds[0]


def _object(kind: Any, value: Any, where: str) -> dict[str, Any]:
    needed = [part.name for part in fields(kind) if part.default is MISSING and part.default_factory is MISSING]
    return fitted_fields(get_type_hints(kind, include_extras=True), value, where, needed)


def fitted_fields(hints: Mapping[str, Any], value: Any, where: str = "", needed: Sequence[str] = ()) -> dict[str, Any]:
    """`value` as an object with the fields of `hints` that it has, those of `needed` among them."""
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} is {_told(value)}, not an object")
    before = f"{where}." if where else ""
    if lost := [name for name in needed if name not in value]:
        raise ValueError(f"{before}{lost[0]} is missing")
    return {name: fitted(hints[name], found, f"{before}{name}") for name, found in value.items() if name in hints}


def _number(kind: type, value: Any, name: str, bounds: tuple[float, float] | tuple[()]) -> Any:
    """A number within its bounds; one without bounds may be infinite, or none."""
    right = WHOLE[0] <= value <= WHOLE[1] if type(value) is int else kind is float and type(value) is float
    if not right:
        raise ValueError(f"{name} is {_told(value)}, not a {'whole ' if kind is int else ''}number of usual size")
    if bounds and not (isfinite(value) and bounds[0] <= value <= bounds[1]):
        raise ValueError(f"{name} is {_told(value)}, not within {bounds[0]:g} to {bounds[1]:g}")
    return value


def _told(value: Any) -> str:
    """A value in a few letters."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return "a number of many digits" if isinstance(value, int) and abs(value) > MOST_COUNT else printable(repr(value), 60)

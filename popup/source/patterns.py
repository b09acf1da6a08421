"""Patterns of names: which of a network's parameters `blocks.0`, `*attention*` or `*.qkv.weight` mean.

A pattern is fnmatch's (`*` also crosses dots, `?`, `[...]`), of whole names: a parameter's own, or that of a module it is in.
So `blocks.0` is all that lies in that module, and `qkv` alone is nothing where each is a `blocks.N.qkv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from popup.errors import UsageError

Value = TypeVar("Value")
MOST_NAMES = 8  # that an error lists


def matches(pattern: str, parameter: str) -> bool:
    """Whether the pattern is of the parameter's name or of the name of a module that it is in, directly or not."""
    parts = parameter.split(".")
    return any(fnmatchcase(".".join(parts[:count]), pattern) for count in range(len(parts), 0, -1))


def matched(pattern: str, parameters: Iterable[str], what: str = "layer") -> list[str]:
    """The `parameters` that the pattern is of, in their order; a UsageError that names these, called `what`, for none."""
    parameters = list(parameters)
    found = [name for name in parameters if matches(pattern, name)]
    if not found:
        near = next((other for other in (f"*.{pattern}", f"{pattern}*", f"*{pattern}*")
                     if any(matches(other, name) for name in parameters)), None)
        more = f", and {len(parameters) - MOST_NAMES} more" if len(parameters) > MOST_NAMES else ""
        raise UsageError(f"the pattern {pattern!r} is of no {what}: {f'did you mean {near!r}? ' if near else ''}there are "
                         f"{', '.join(parameters[:MOST_NAMES])}{more}")
    return found


def any_matched(patterns: Iterable[str], parameters: Iterable[str], what: str = "layer") -> set[str]:
    """The `parameters` that at least one of the patterns is of; a UsageError for a pattern that is of none."""
    parameters = list(parameters)
    return {name for pattern in patterns for name in matched(pattern, parameters, what)}


def by_name(values: Mapping[str, Value], parameters: Iterable[str], what: str = "layer") -> dict[str, Value]:
    """The value of each parameter that a pattern of `values` is of, by its name; those without one are left out.

    Two patterns with different values for one parameter are a UsageError, so that the order of patterns never matters.
    """
    parameters, found, origin = list(parameters), dict[str, Value](), dict[str, str]()
    for pattern, value in values.items():
        for name in matched(pattern, parameters, what):
            if found.setdefault(name, value) != value:
                raise UsageError(f"{what} {name!r} has the value {found[name]!r} by the pattern {origin[name]!r} and {value!r} "
                                 f"by {pattern!r}: let one pattern alone be of it")
            origin.setdefault(name, pattern)
    return found

"""All or nothing: what is done to the modules of a network is undone if it fails on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

TABLES = ("_parameters", "_buffers", "_modules")


@contextmanager
def undone_if_it_fails(net: nn.Module) -> Iterator[None]:
    """If the block raises, whatever it is, the modules of `net` are as before: their classes, their attributes, their parameters
    and buffers in order, and which of them learn. No values are kept, which would take the network's memory once more: check
    first what is written, and write it last."""
    before = [(module, type(module), dict(vars(module)), {name: dict(vars(module)[name]) for name in TABLES})
              for module in net.modules()]
    learned = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        yield
    except BaseException:
        for module, kind, attributes, tables in before:
            object.__setattr__(module, "__class__", kind)  # whatever the class itself does where it is assigned to
            vars(module).clear()
            vars(module).update(attributes)
            for name, table in tables.items():  # in place, since somebody may hold the dict
                attributes[name].clear()
                attributes[name].update(table)
        for parameter, learns in learned:
            if parameter.requires_grad != learns:
                parameter.requires_grad_(learns)
        raise

"""Whether two networks are of one architecture, as far as names, shapes and kinds of number tell."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from popup.ticket.file import TicketError


def check_same(kind: str, mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """The same names with the same shapes and kinds of number on both sides, or a TicketError that names the first difference."""
    for name in sorted(mine.keys() ^ theirs.keys()):
        where = "the ticket has a" if name in mine else "the network has a"
        raise TicketError(f"{where} {kind} {name!r} that the other lacks: the ticket is of another architecture")
    for name, tensor in mine.items():
        if tensor.shape != theirs[name].shape:
            raise TicketError(f"{kind} {name!r} has shape {list(theirs[name].shape)} in the network and "
                              f"{list(tensor.shape)} in the ticket: the ticket is of another architecture")
        if kind_of_number(tensor) != kind_of_number(theirs[name]):
            raise TicketError(f"{kind} {name!r} is {theirs[name].dtype} in the network and {tensor.dtype} in the ticket: the "
                              "ticket is of another architecture")


def kind_of_number(tensor: torch.Tensor) -> tuple[bool, bool]:
    """What copying between dtypes must not change: whether numbers are complex, whether they are whole."""
    return tensor.is_complex(), tensor.is_floating_point()

"""How much two tickets of one source have in common, layer by layer, against what chance gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popup.ticket.file import TicketError
from popup.ticket.ticket import Ticket


@dataclass(frozen=True)
class Overlap:
    """One layer (or all): the source's edges, those kept by the one, by the other, by both, by both with codes of one meaning,
    and by both by chance."""

    name: str
    edges: int
    first: int
    second: int
    both: int
    alike: int
    expected: float  # of `both`, if the second's edges were drawn anew, all sets of that size in each layer equally likely

    @property
    def jaccard(self) -> float:
        """Kept by both, of those kept by either; 1 if none is kept."""
        return _jaccard(self.first, self.second, self.both)

    @property
    def chance(self) -> float:
        """The Jaccard index at the expected overlap."""
        return _jaccard(self.first, self.second, self.expected)


def _jaccard(first: int, second: int, both: float) -> float:
    either = first + second - both
    return both / either if either else 1.0


def compare(one: Ticket, other: Ticket) -> list[Overlap]:
    """One row a layer, and the row 'all'. Raises TicketError unless both are tickets of the same edges."""
    names = [[layer.spec for layer in ticket.layers] for ticket in (one, other)]
    if names[0] != names[1]:
        raise TicketError("the tickets are of networks with other layers, so there is nothing to compare")
    own = one.book.first_is_own and other.book.first_is_own
    rows = []
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        if mine.edges_hash != theirs.edges_hash:
            raise TicketError(f"{mine.spec.name} has other edges in the two tickets: compare tickets of one source "
                              "(the same seed, er_p and density)")
        edges, first, second = len(mine.codes), mine.kept, theirs.kept
        both = mine.selected & theirs.selected
        alike = both & (mine.codes == theirs.codes) & (one.book == other.book or own & (mine.codes == 1))
        counts = int(np.count_nonzero(both)), int(np.count_nonzero(alike))
        rows.append(Overlap(mine.spec.name, edges, first, second, *counts, first * second / edges if edges else 0.0))
    total = [sum(getattr(row, field) for row in rows) for field in ("edges", "first", "second", "both", "alike", "expected")]
    return [*rows, Overlap("all", *total)]

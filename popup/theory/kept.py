"""What is kept of one source layer, while it comes in blocks of rows: codes, and of kept edges which input each is of."""

from __future__ import annotations

import numpy as np

from popup.source.layer_source import LayerSource
from popup.source.layers import Layer
from popup.ticket.hashes import RunningHash
from popup.ticket.layer import TicketLayer

MOST_SPARE = 1024  # edges into neurons that nothing uses which a ticket may need to make its counts exact


class KeptEdges:
    """The chosen edges of a layer [rows, inputs]. Memory: a byte an edge of the source for its code, 4 a kept one."""

    def __init__(self, spec: Layer, p_l: float) -> None:
        self.spec, self.p_l = spec, p_l
        self.inputs = spec.entries // spec.shape[0]  # of a row: inputs * taps
        self._codes: list[np.ndarray] = []
        self._columns: list[np.ndarray] = []
        self._edges: list[np.ndarray] = []  # edges of each row
        self._kept: list[np.ndarray] = []   # kept edges of each row
        self._hashes = RunningHash(), RunningHash()
        self._unused = np.zeros(spec.shape[0], dtype=bool)

    def add(self, rows: range, source: LayerSource, chosen: np.ndarray) -> None:
        """The next block: its edges, and which of its places [rows, inputs] are kept."""
        self._codes.append(chosen.reshape(-1)[source.edges - rows.start * self.inputs])
        starts = np.searchsorted(source.edges, np.arange(rows.start, rows.stop + 1) * self.inputs)
        self._edges.append(np.diff(starts))
        self._kept.append(chosen.sum(1))
        self._columns.append(np.nonzero(chosen)[1].astype(np.int32))
        for running, array in zip(self._hashes, (source.edges, source.values), strict=True):
            running.add(array)

    def used(self) -> np.ndarray:
        """bool [inputs]: from which inputs a kept edge leads to a row that is in use."""
        found = np.zeros(self.inputs, dtype=bool)
        kept = np.repeat(~self._unused, np.concatenate(self._kept))
        found[np.concatenate(self._columns)[kept]] = True
        return found

    def clear(self, unused: np.ndarray) -> None:
        """Drop the edges of the rows that nothing uses, bool [rows]."""
        self._unused = unused

    def finish(self) -> tuple[TicketLayer, np.ndarray]:
        """The layer as a ticket has it, and some of its edges that lead to rows that nothing uses."""
        codes, ends = np.concatenate(self._codes), np.concatenate([[0], np.cumsum(np.concatenate(self._edges))])
        spare: list[np.ndarray] = []
        for row in np.flatnonzero(self._unused):
            codes[ends[row]:ends[row + 1]] = False
            if sum(map(len, spare)) < MOST_SPARE:
                spare.append(np.arange(ends[row], ends[row + 1]))
        edges, values = (running.hex() for running in self._hashes)
        return (TicketLayer(self.spec, self.p_l, codes, edges, values),
                np.concatenate([np.zeros(0, dtype=np.int64), *spare])[:MOST_SPARE])


def clear_unused(layers: list[KeptEdges]) -> None:
    """Drop, from the last layer down, the edges into neurons that no kept edge leaves."""
    for below, above in zip(layers[-2::-1], layers[:0:-1], strict=True):
        used: np.ndarray = above.used().reshape(below.spec.shape[0], -1)
        below.clear(~np.any(used, axis=1))  # at none of the taps above

"""What of each layer is kept, as rows."""

from __future__ import annotations

from dataclasses import dataclass

from popup.search.tables import html_table, text_table
from popup.source.layers import Layer


@dataclass(frozen=True)
class LayerDensity:
    """One layer's row: how many entries, the p_l asked for, the edges drawn, how many are kept, kept / entries."""

    name: str
    entries: int
    p_l: float
    edges: int
    kept: int
    density: float


def density_row(layer: Layer, p_l: float, edges: int, kept: int) -> LayerDensity:
    """The row of one layer from its counts."""
    return LayerDensity(layer.name, layer.entries, p_l, edges, kept, kept / layer.entries)


class Densities(list[LayerDensity]):
    """The rows of a network's layers; in a terminal and in a notebook a table with their sum."""

    HEADER = ("layer", "entries", "p_l", "edges", "kept", "density")

    def _rows(self) -> list[list[str]]:
        rows = [[row.name, f"{row.entries:,}", f"{row.p_l:.4f}", f"{row.edges:,}", f"{row.kept:,}", f"{row.density:.4f}"]
                for row in self]
        entries, edges, kept = (sum(getattr(row, name) for row in self) for name in ("entries", "edges", "kept"))
        return [*rows, ["all", f"{entries:,}", f"{edges / max(1, entries):.4f}", f"{edges:,}", f"{kept:,}",
                        f"{kept / max(1, entries):.4f}"]]

    def __repr__(self) -> str:
        return text_table(self.HEADER, self._rows())

    def _repr_html_(self) -> str:
        return html_table(self.HEADER, self._rows(), f"{len(self)} layers")

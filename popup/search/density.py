"""What of each layer is kept, as rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from popup.search.tables import html_table, text_table
from popup.source.layers import Layer


@dataclass(frozen=True)
class LayerDensity:
    """One layer's row: how many entries, the p_l asked for, the edges drawn, how many are kept, kept / entries; and k, the part
    of its edges that it is to keep, where that is not the recipe's."""

    name: str
    entries: int
    p_l: float
    edges: int
    kept: int
    density: float
    k: float | None = None

    def record(self) -> dict[str, Any]:
        """It as plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def density_row(layer: Layer, p_l: float, edges: int, kept: int, k: float | None = None) -> LayerDensity:
    """The row of one layer from its counts."""
    return LayerDensity(layer.name, layer.entries, p_l, edges, kept, kept / layer.entries, k)


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

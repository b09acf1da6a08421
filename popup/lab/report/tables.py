"""Tables as plain text, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH = 100


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell, the first `left` of them flush left, the others flush right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.ljust(width) if place < left else cell.rjust(width)
                 for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def layer_table(result: dict[str, Any]) -> str:
    """One row a layer and the total: entries, the p_l asked for, edges drawn, edges kept, and both densities."""
    rows = [[_short(row["name"]), f"{row['entries']:,}", f"{row['p_l']:.4f}", f"{row['edges']:,}",
             f"{_ratio(row['edges'], row['entries']):.4f}", f"{row['kept']:,}", f"{row['density']:.4f}"]
            for row in result["layers"]]
    wanted = sum(row["p_l"] * row["entries"] for row in result["layers"]) / result["entries"]
    rows.append(["all", f"{result['entries']:,}", f"{wanted:.4f}", f"{result['edges']:,}",
                 f"{result['edge_density']:.4f}", f"{result['kept']:,}", f"{result['final_density']:.4f}"])
    return table(["layer", "entries", "p_l", "edges", "edges/entries", "kept", "kept/entries"], rows)


def _short(name: str, limit: int = 34) -> str:
    return name if len(name) <= limit else "..." + name[-(limit - 3):]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def proof_lines(proof: dict[str, Any]) -> list[str]:
    """One line for each law that was checked on the finished run; `proof` as result.json holds it."""
    checks = [
        (f"no weight changed: the hashes of all {proof['frozen']} frozen tensors are those of before", proof["changed"]),
        ("S_P within S_ER: every weight in use is an edge of the source drawn anew, with its value", proof["outside"]),
        ("exact counts: each layer keeps just what k asks for (a global scope: the network)", proof["miscounted"]),
        (f"the plain merged network makes the same {proof['predictions']} predictions",
         [f"{proof['differing']} differ"] if proof["differing"] else []),
    ]
    return check_lines(checks)


def check_lines(checks: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """One line a check: what was checked, and what failed it (nothing if it holds)."""
    return [f"  {'ok    ' if not failed else 'BROKEN'} {text}{': ' + ', '.join(failed) if failed else ''}"
            for text, failed in checks]

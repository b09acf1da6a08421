"""Tables as plain text, at most 100 columns wide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from popup.lab.text import printable

WIDTH = 100
NAME = 34  # of a layer
BREAKS = (", ", " ", "[_:/.-]", "")  # where a cell may be broken
LONGEST = 100_000  # letters of a check's line, which names every layer that fails
LEAST = 8  # the narrowest column that a cell is wrapped to


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest line, the first `left` of them flush left, the others flush right. Cells may have
    several lines."""
    cells = [[cell.split("\n") for cell in row] for row in (header, *rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(header))]
    lines = [[_line(row, widths, left, place) for place in range(max(map(len, row)))] for row in cells]
    rule = "-" * max(len(line) for part in lines for line in part)
    return "\n".join([*lines[0], rule, *(line for part in lines[1:] for line in part)])


def _line(row: Sequence[Sequence[str]], widths: Sequence[int], left: int, place: int) -> str:
    """The line number `place` of a row whose cells are lines."""
    parts = [lines[place] if place < len(lines) else "" for lines in row]
    return "  ".join(part.ljust(width) if column < left else part.rjust(width)
                     for column, (part, width) in enumerate(zip(parts, widths, strict=True))).rstrip()


def fit(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table with its widest cells wrapped, text before figures with intervals, until it fits the width. Nothing is left
    out, so that no two rows read the same; what cannot be made to fit is wider."""
    text, lines = table(header, rows), [header, *rows]
    for breaks, spared in ((BREAKS[:-1], "±"), (BREAKS[:-1], ""), (BREAKS, "")):  # within a word last of all
        for limit in range(min(max(len(cell) for row in lines for cell in row), WIDTH), LEAST - 1, -1):  # wider never fits
            if max(map(len, text.splitlines())) <= WIDTH:
                return text
            top, *others = [[cell if spared and spared in cell else wrap(cell, limit, breaks) for cell in row] for row in lines]
            text = table(top, others)
    return text


def wrap(cell: str, limit: int, breaks: Sequence[str] = BREAKS) -> str:
    """The cell in lines of at most `limit`, broken where the first of `breaks` match, and within such a part at the next."""
    if len(cell) <= limit:
        return cell
    lines = [""]
    for part in re.findall(f".+?(?:{breaks[0]}|$)", cell):
        if len(lines[-1] + part.rstrip()) <= limit:
            lines[-1] += part
        elif len(part.rstrip()) <= limit or len(breaks) == 1:
            lines.append(part)
        else:
            lines += wrap(part, limit, breaks[1:]).split("\n")
            lines[-1] += part[len(part.rstrip()):]  # the blank before what may follow
    return "\n".join(line.rstrip() for line in lines if line)


def layer_table(result: dict[str, Any]) -> str:
    """One row a layer and the total: entries, the p_l asked for, edges drawn, edges kept, and both densities."""
    rows = [[wrap(printable(row["name"]), NAME), f"{row['entries']:,}", f"{row['p_l']:.4f}", f"{row['edges']:,}",
             f"{_ratio(row['edges'], row['entries']):.4f}", f"{row['kept']:,}", f"{row['density']:.4f}"]
            for row in result["layers"]]
    wanted = sum(row["p_l"] * row["entries"] for row in result["layers"]) / result["entries"]
    rows.append(["all", f"{result['entries']:,}", f"{wanted:.4f}", f"{result['edges']:,}",
                 f"{result['edge_density']:.4f}", f"{result['kept']:,}", f"{result['final_density']:.4f}"])
    return table(["layer", "entries", "p_l", "edges", "edges/entries", "kept", "kept/entries"], rows)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def proof_lines(proof: dict[str, Any], inputs: str = "images") -> list[str]:
    """One line for each law that was checked on the finished run; `proof` as result.json holds it, `inputs`: what
    the network was run on, in the plural."""
    where = "a network built anew" if proof.get("anew") else "a plain copy"
    weights = (f"weights changed by the seed's redraws alone, each of edges not selected then ({proof['redraws']} edges have "
               f"such a weight, {proof['redrawn']} of them kept)" if proof.get("redraws") else "no weight changed")
    used = [(f"at the point of use: with the saved ticket in {where}, each product gets the ticket's weights, entry by entry",
             proof["misused"])] if "misused" in proof else []  # of records from before, which have none
    checks = [
        (f"{weights}: the hashes of all {proof['frozen']} frozen tensors are those of before", proof["changed"]),
        ("S_P within S_ER: every weight in use is an edge of the source drawn anew, with its value", proof["outside"]),
        ("exact counts: each layer keeps just what k asks for (a global scope: the network)", proof["miscounted"]),
        *used,
        (f"its outputs are the searched network's on {proof['predictions']} {inputs}" if used else
         f"the plain merged network makes the same {proof['predictions']} predictions",
         [f"{proof['differing']} differ"] if proof["differing"] else []),
    ]
    if proof.get("trained"):
        checks.append(("the method keeps its contract: what it trains is what tickets hold", proof["trained"]))
    return check_lines(checks)


def check_lines(checks: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """One line a check: what was checked, and what failed it (nothing if it holds)."""
    return [printable(f"  {'ok    ' if not failed else 'BROKEN'} {text}{': ' + ', '.join(failed) if failed else ''}", LONGEST)
            for text, failed in checks]

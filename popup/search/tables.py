"""Tables of layers as text, for a terminal, and as HTML, for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

SHOWN = 40  # rows of a table; of more the first and the last


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns with two blanks between them, the first to the left and the others to the right."""
    shown = [header, *_some(rows, len(header))]
    widths = [max(len(row[place]) for row in shown) for place in range(len(header))]
    lines = ["  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                       for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in shown]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """The same as a table of HTML, under its caption."""
    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in _some(rows, len(header)))
    return f"<table><caption>{escape(caption)}</caption><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _some(rows: Sequence[Sequence[str]], columns: int) -> list[Sequence[str]]:
    if len(rows) <= SHOWN:
        return list(rows)
    half = SHOWN // 2
    return [*rows[:half], [f"... {len(rows) - 2 * half} more", *[""] * (columns - 1)], *rows[-half:]]

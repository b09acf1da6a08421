"""A figure's bytes. Every text in it is text: a name with $ is no mathematics, and what cannot be seen is a question mark."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from popup.lab.text import printable_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """The picture as PNG."""
    content = io.BytesIO()
    _take_literally(figure)
    figure.savefig(content, format="png")
    return content.getvalue()


def svg(figure: Figure, salt: str) -> str:
    """The picture as SVG text; equal pictures of one salt are equal bytes."""
    import matplotlib

    content = io.StringIO()
    _take_literally(figure)
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _take_literally(figure: Figure) -> None:
    """Have no text parsed but the numbers of logarithmic axes, which matplotlib itself writes as mathematics."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    powers = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for formatter, ticks in ((axis.get_major_formatter(), axis.get_major_ticks()),
                                     (axis.get_minor_formatter(), axis.get_minor_ticks())):
                if isinstance(formatter, LogFormatter):
                    powers |= {id(text) for tick in ticks for text in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if id(text) not in powers:
            text.set_parse_math(False)
            text.set_text(printable_lines(text.get_text()))

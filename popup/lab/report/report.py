"""A report of what is on disk: the text, results.csv, pictures as PNG and SVG, and one HTML page of all of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from popup.files import write_atomically
from popup.lab.report.comparison import settings
from popup.lab.report.diagnostic_figures import DIAGNOSTICS
from popup.lab.report.figures import FIGURES
from popup.lab.report.page import render
from popup.lab.report.results import Run, write_csv
from popup.lab.report.summary import failure_lines, mixed_lines, summarise, tables, verdicts


def write_report(out: Path, runs: Sequence[Run], diagnostics: bool = False) -> str:
    """Write results.csv, report.txt, report.html and figures/ under `out`; returns the text of the report."""
    found = settings(runs)
    write_csv(out / "results.csv", runs)
    sentences = mixed_lines(runs) + verdicts(found)
    text = "\n\n".join(part for part in (summarise(runs, found), "\n".join(sentences)) if part)
    write_atomically(out / "report.txt", (text + "\n").encode())
    pictures = _draw(out / "figures", found, {**FIGURES, **(DIAGNOSTICS if diagnostics else {})}) if found else []
    page = render(tables(found), pictures, sentences, failure_lines(runs), len(runs))
    write_atomically(out / "report.html", page.encode())
    return text


def _draw(folder: Path, found: Sequence, wanted: dict) -> list[tuple[str, str]]:
    """Draw the pictures; returns (title, SVG text) of each that had something to show."""
    import matplotlib

    folder.mkdir(exist_ok=True)
    drawn = []
    for name, (title, draw) in wanted.items():
        figure = draw(found)
        if figure is None:
            continue
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png")
        with matplotlib.rc_context({"svg.hashsalt": name}):  # equal pictures are equal bytes
            figure.savefig(svg, format="svg", metadata={"Date": None})
        write_atomically(folder / f"{name}.png", png.getvalue())
        write_atomically(folder / f"{name}.svg", svg.getvalue().encode())
        drawn.append((title, svg.getvalue()))
    return drawn

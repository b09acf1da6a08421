"""A report of what is on disk: the text, results.csv, pictures as PNG and SVG, and one HTML page of all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from popup.files import own_folder, write_atomically
from popup.lab.report.comparison import Setting, settings
from popup.lab.report.diagnostic_figures import DIAGNOSTICS
from popup.lab.report.figures import FIGURES
from popup.lab.report.page import render
from popup.lab.report.pictures import png, svg
from popup.lab.report.results import Run, write_csv
from popup.lab.report.summary import failure_lines, mixed_lines, summarise, tables
from popup.lab.report.tables import WIDTH
from popup.lab.report.verdicts import verdicts
from popup.lab.text import printable_lines

HASH = re.compile("[0-9a-f]{12}")  # the name of a run's directory, and not of a copy that somebody keeps


def report_text(out: Path, runs: Sequence[Run], whole: bool = False) -> str:
    """The text of `write_report`, where nothing can be written."""
    found = settings(runs)
    return _text(runs, found, _sentences(out, runs, found, whole))


def _sentences(out: Path, runs: Sequence[Run], found: Sequence[Setting], whole: bool) -> list[str]:
    return mixed_lines(runs) + verdicts(found) + _elsewhere(out, runs, whole)


def _text(runs: Sequence[Run], found: Sequence[Setting], sentences: Sequence[str]) -> str:
    said = "\n".join(fill(sentence, WIDTH, break_on_hyphens=False, break_long_words=False) for sentence in sentences)
    return printable_lines("\n\n".join(part for part in (summarise(runs, found), said) if part))


def write_report(out: Path, runs: Sequence[Run], diagnostics: bool = False, whole: bool = False) -> str:
    """Write results.csv, report.txt, report.html and figures/ under `out`; returns the text of the report. `whole`: the runs
    are all that can be reported there."""
    found = settings(runs)
    write_csv(out / "results.csv", runs)
    sentences = _sentences(out, runs, found, whole)
    text = _text(runs, found, sentences)
    write_atomically(out / "report.txt", (text + "\n").encode())
    pictures = _draw(out / "figures", found, {**FIGURES, **(DIAGNOSTICS if diagnostics else {})}) if found else []
    page = render(tables(found), pictures, sentences, failure_lines(runs), len(runs))
    write_atomically(out / "report.html", page.encode())
    return text


def _elsewhere(out: Path, runs: Sequence[Run], whole: bool) -> list[str]:
    """The line on the finished runs under `out` that are not among `runs`: those of another grid, or of no known config."""
    names = {path.parent.name for path in out.glob("*/result.json") if HASH.fullmatch(path.parent.name)}
    others = len(names - {run.path.name for run in runs})
    if whole and others:
        return [f"Left out: {others} result.json under {out}/ without a config.json beside it, or of a run that another "
                "directory holds as well."]
    return [f"{others} other finished run{'s' * (others > 1)} in {out}/ {'are' if others > 1 else 'is'} no part of this: python "
            f"run.py report {out} tells of all."] if others else []


def written(out: Path) -> str:
    """The line on what a report has left under `out`."""
    names = [name for name in ("results.csv", "report.txt", "report.html", "figures/") if (out / name).exists()]
    return f"written to {out}/: {' '.join(names)}"


def _draw(folder: Path, found: Sequence, wanted: dict) -> list[tuple[str, str]]:
    """Draw the pictures; returns (title, SVG text) of each."""
    own_folder(folder)
    drawn = []
    for name, (title, draw) in wanted.items():
        figures = draw(found)
        for old in (*folder.glob(f"{name}.[ps][nv]g"), *folder.glob(f"{name}-[2-9].[ps][nv]g")):  # of a report of other runs
            old.unlink()
        for number, figure in enumerate(figures, 1):
            place = folder / (name if number == 1 else f"{name}-{number}")
            drawn.append((title if number == 1 else f"{title}, {number}", _save(figure, place)))
    return drawn


def _save(figure: Any, place: Path) -> str:
    """Write a figure as PNG and SVG; returns the SVG's text."""
    text = svg(figure, place.name)
    write_atomically(place.with_suffix(".png"), png(figure))
    write_atomically(place.with_suffix(".svg"), text.encode())
    return text

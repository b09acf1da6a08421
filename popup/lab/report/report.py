"""A report of what is on disk: the text, results.csv, pictures as PNG and SVG, and one HTML page of all of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from popup.files import own_folder, remove_own, write_atomically
from popup.lab.measure import MEASURES
from popup.lab.program import program
from popup.lab.report.answer import answer, best_of
from popup.lab.report.axes import NARROW, WIDE
from popup.lab.report.captions import Picture, described
from popup.lab.report.comparison import Setting, settings
from popup.lab.report.cuts import cut_lines
from popup.lab.report.diagnostic_figures import DIAGNOSTICS
from popup.lab.report.figures import MAIN, PICTURES
from popup.lab.report.heading import facts_of, ticket_of, title_of
from popup.lab.report.look import LOOK, themed
from popup.lab.report.page import Page, Shown
from popup.lab.report.pictures import png, svg
from popup.lab.report.results import Run, write_csv
from popup.lab.report.shares import shares_lines
from popup.lab.report.summary import failure_lines, mixed_lines, summarise, tables
from popup.lab.report.tables import WIDTH
from popup.lab.report.verdicts import verdicts
from popup.lab.text import printable, printable_lines

HASH = re.compile("[0-9a-f]{12}")  # the name of a run's directory, and not of a copy that somebody keeps


def report_text(out: Path, runs: Sequence[Run], damaged: Collection[Path] = (), whole: bool = False) -> str:
    """The text of `write_report`, where nothing can be written."""
    parts = comparisons(runs)
    return _text(runs, parts, _sentences(runs, parts, out, _elsewhere(out, runs, damaged, whole)))


def comparisons(runs: Sequence[Run]) -> list[list[Setting]]:
    """The settings of what can be compared: runs whose tasks measure the same. Mostly there is one such part."""
    parts = (settings([run for run in runs if run.result and run.measure is measure]) for measure in MEASURES)
    return [found for found in parts if found]


def _sentences(runs: Sequence[Run], parts: Sequence[Sequence[Setting]], out: Path, elsewhere: list[str]) -> list[str]:
    answers = _answers(runs, parts)
    ticket = ticket_of(_best(parts), out)
    return mixed_lines(runs) + answers + [f"A ticket: {printable(ticket)}."] * bool(ticket) + elsewhere


def _answers(runs: Sequence[Run], parts: Sequence[Sequence[Setting]]) -> list[str]:
    return [sentence for found in parts for sentence in answer(found) + verdicts(found)] + cut_lines(runs) + shares_lines(runs)


def _best(parts: Sequence[Sequence[Setting]]) -> Sequence[Run]:
    """The runs of the best mean, of the first part."""
    return best_of(parts[0]).runs if parts else ()


def _text(runs: Sequence[Run], parts: Sequence[Sequence[Setting]], sentences: Sequence[str]) -> str:
    said = "\n".join(fill(sentence, WIDTH, break_on_hyphens=False, break_long_words=False) for sentence in sentences)
    return printable_lines("\n\n".join(part for part in (summarise(runs, *parts), said) if part))


def write_report(out: Path, runs: Sequence[Run], diagnostics: bool = False, damaged: Collection[Path] = (),
                 whole: bool = False) -> str:
    """Write results.csv, report.txt, report.html and figures/ under `out`; returns the text of the report. `damaged`: the
    directories of runs that cannot be read, which are told of elsewhere; `whole`: the runs are all others that are there."""
    parts, elsewhere = comparisons(runs), _elsewhere(out, runs, damaged, whole)
    write_csv(out / "results.csv", runs)
    text = _text(runs, parts, _sentences(runs, parts, out, elsewhere))
    write_atomically(out / "report.txt", (text + "\n").encode())
    wanted = {**PICTURES, **(DIAGNOSTICS if diagnostics else {})}
    pictures = [shown for place, found in enumerate(parts)
                for shown in _draw(out / "figures", found, wanted, f"{found[0].measure.column}-" if place else "")]
    page = Page(title_of(runs), facts_of(runs, _best(parts)), mixed_lines(runs) + elsewhere,
                _answers(runs, parts),
                [table for found in parts for table in tables(found)], pictures, failure_lines(runs))
    write_atomically(out / "report.html", page.html().encode())
    return text


def _elsewhere(out: Path, runs: Sequence[Run], damaged: Collection[Path], whole: bool) -> list[str]:
    """The line on the finished runs under `out` that are not among `runs`: those of another grid, or of no known config."""
    names = {path.parent.name for path in out.glob("*/result.json") if HASH.fullmatch(path.parent.name)}
    others = len(names - {run.path.name for run in runs} - {path.name for path in damaged})
    place = printable(out)
    if whole and others:
        return [f"Left out: {others} result.json under {place}/ without a config.json beside it, or of a run that another "
                "directory holds as well."]
    return [f"{others} other finished run{'s' * (others > 1)} in {place}/ {'are' if others > 1 else 'is'} no part of this: "
            f"{program()} report {place} tells of all."] if others else []


def written(out: Path) -> str:
    """The line on what a report has left under `out`."""
    names = [name for name in ("results.csv", "report.txt", "report.html", "figures/") if (out / name).exists()]
    return f"written to {printable(out)}/: {' '.join(names)}"


def _draw(folder: Path, found: Sequence[Setting], wanted: dict[str, Picture],
          prefix: str = "") -> list[Shown]:
    """Draw the pictures: wide ones into files whose names begin with `prefix`, and for the page narrow ones too."""
    import matplotlib

    own_folder(folder)
    shown = []
    with matplotlib.rc_context(LOOK):
        for kind, picture in wanted.items():
            measure, wide = found[0].measure.name, picture.draw(found, WIDE)
            name, title = prefix + (measure if kind == MAIN else kind), picture.title.format(measure.capitalize())
            for old in (*folder.glob(f"{name}.[ps][nv]g"), *folder.glob(f"{name}-[2-9].[ps][nv]g")):  # of a report of other runs
                remove_own(old)
            if isinstance(wide, str):
                shown.append(Shown(title, wide))
            elif wide:
                places = [folder / (name if number == 1 else f"{name}-{number}") for number in range(1, len(wide) + 1)]
                narrow = [svg(figure, f"narrow {name}") for figure in picture.draw(found, NARROW) if not isinstance(figure, str)]
                shown.append(Shown(title, picture.caption(found), tuple(map(_save, wide, places)), tuple(narrow),
                                   tuple(described(title, figure) for figure in wide)))
    return shown


def _save(figure: Any, place: Path) -> str:
    """Write a figure as PNG and SVG; returns the SVG's text."""
    text = svg(figure, place.name)
    write_atomically(place.with_suffix(".png"), png(figure))
    write_atomically(place.with_suffix(".svg"), themed(text).encode())
    return text

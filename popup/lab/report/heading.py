"""What a report is of: its title, and the facts that stand below it, data, network, command, date, versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from popup.lab.report.command import command_of, in_common
from popup.lab.report.results import Run
from popup.lab.runs.controls import TICKET
from popup.lab.runs.directory import TICKET_FILE
from popup.lab.runs.grid import counted
from popup.lab.text import printable
from popup.version import VERSION

SHOWN = 4         # names of one kind
LONGEST = 10_000  # letters of a fact


def title_of(runs: Sequence[Run]) -> str:
    """Like: Strong lottery tickets: mlp on digits."""
    return printable(f"Strong lottery tickets: {_listed([run.config.task.model for run in runs])} on "
                     f"{_listed([_data(run) for run in runs])}", LONGEST)


def facts_of(runs: Sequence[Run], best: Sequence[Run] = ()) -> list[tuple[str, str]]:
    """Name and text of each fact; those that no run records are left out. `best`: the runs of the best mean."""
    results = [run.result for run in runs if run.result]
    command, common = command_of(runs), in_common(runs)
    several = f"several commands, all with {common}" if common else "several commands"
    facts = [
        ("data", "; ".join(dict.fromkeys(_images(run) for run in runs))),
        ("network", "; ".join(_longest(_network(run) for run in runs if run.result))),
        ("runs", _counts(runs)),
        ("ticket", ticket_of(best)),
        ("command", command or f"{several}: what was changed is in the table"),
        ("date", _dates(runs)),
        ("versions", _versions(results)),
        ("computed on", _listed([found for result in results if (found := result.get("hardware"))])),
    ]
    return [(name, printable(text, LONGEST)) for name, text in facts if text]


def ticket_of(best: Sequence[Run], beside: Path | None = None) -> str:
    """The file of the first ticket that is there, as seen from the page or below the folder `beside`; empty if none is."""
    there = [run for run in best if (run.path / TICKET_FILE).exists()]
    return f"{(beside or Path()) / there[0].path.name / TICKET_FILE} (of the best mean, seed {there[0].seed})" if there else ""


def _longest(texts: Iterable[str]) -> list[str]:
    """Distinct texts without those that another goes on from: controls with trained weights do not record what stays dense."""
    distinct = list(dict.fromkeys(texts))
    return [text for text in distinct if not any(other.startswith(f"{text}, ") for other in distinct)]


def _listed(names: Sequence[str]) -> str:
    """Distinct names with commas, the first few of them."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else ""
    return ", ".join(distinct[:SHOWN]) + more


def _data(run: Run) -> str:
    return (run.result or {}).get("data") or run.config.task.dataset


def _images(run: Run) -> str:
    """The data, and how many there are of them; the same words for runs that saw the same."""
    images = (run.result or {}).get("images")
    if not images:
        return _data(run)
    return (f"{_data(run)}: {images[0]:,} {run.measure.inputs} to train on, {images[1]:,} for {run.config.task.evaluated_on} "
            f"{run.measure.name}")


def _network(run: Run) -> str:
    result: dict[str, Any] = run.result or {}
    weights = f": {result['entries']:,} weights" if "entries" in result else ""
    dense = f", and {result['dense']:,} that are in none and stay dense" if result.get("dense") else ""
    return f"{run.config.task.model}{weights} in {counted(len(result['layers']), 'layer')}{dense}"


def _counts(runs: Sequence[Run]) -> str:
    tickets = sum(run.config.task.role == TICKET for run in runs)
    seeds = len({run.seed for run in runs})
    failed = sum(run.failure is not None for run in runs)
    parts = [counted(tickets, "ticket")] + ([counted(len(runs) - tickets, "control")] if tickets < len(runs) else [])
    return f"{counted(len(runs), 'run')}: {' and '.join(parts)}, {counted(seeds, 'seed')}" + (f", {failed} failed" * bool(failed))


def _dates(runs: Sequence[Run]) -> str:
    """When the first and the last run were finished, by their files."""
    days = set()
    for run in runs:
        with suppress(OSError):
            days.add(datetime.fromtimestamp((run.path / "result.json").stat().st_mtime).date().isoformat())
    return " to ".join(dict.fromkeys((min(days), max(days)))) if days else ""


def _versions(results: Sequence[dict[str, Any]]) -> str:
    """Those that the runs record, and popup's own, which has made the report."""
    found: dict[str, list[str]] = {}
    for result in results:
        for name, version in (result.get("versions") or {}).items():
            found.setdefault(name, []).append(str(version))
    told = [f"{name} {_listed(versions)}" for name, versions in found.items()]
    return ", ".join([*told, f"report by popup {VERSION}"])

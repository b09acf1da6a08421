"""Layers without an edge, at which a network is cut: what it gives is then the same for all inputs, unless shortcuts lead by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from popup.lab.config import Config
from popup.lab.report.results import Run
from popup.lab.runs.cell import label
from popup.lab.runs.controls import TICKET
from popup.lab.text import printable

NAMED = 3  # layers that are told of by their names
UNLESS = ", unless a shortcut leads by"


def cut_line(config: Config, result: Mapping[str, Any]) -> str:
    """Which layers of one run have no edge, and what may help; nothing where each has one."""
    names = cut_layers(config, result)
    if not names:
        return ""
    return f"no edge was drawn in {_some(names)}: the network is cut there{_unless([result])}; {_remedy([config])}"


def cut_lines(runs: Sequence[Run]) -> list[str]:
    """The same for many: how many tickets there are of such sources, and the first of them."""
    tickets = [run for run in runs if run.result and run.config.task.role == TICKET]
    if not (found := [run for run in tickets if cut_layers(run.config, run.found)]):
        return []
    first, have = found[0], "is of a source" if len(found) == 1 else "are of sources"
    unless, remedy = _unless([run.found for run in found]), _remedy([run.config for run in found])
    return [f"{len(found)} of {len(tickets)} tickets {have} with a layer without an edge, at which the network is cut{unless}, "
            f"such as {label(first.config)}, with none in {_some(cut_layers(first.config, first.found))}: {remedy}."]


def cut_layers(config: Config, result: Mapping[str, Any]) -> list[str]:
    """The names of the layers without an edge; of a bias nothing comes but its own number."""
    biases = config.source.searches_biases
    return [row["name"] for row in result["layers"] if not row["edges"] and not (biases and row["name"].endswith("bias"))]


def _unless(results: Sequence[Mapping[str, Any]]) -> str:
    """What is to be added where it is not known that layers follow one another, with nothing beside them."""
    known = all((result.get("diagnostics") or {}).get("series") for result in results)
    return "" if known else UNLESS


def _remedy(configs: Sequence[Config]) -> str:
    drawn = all(config.source.draws_edges for config in configs)
    return "raise --er-p or choose another --density" if drawn else "raise --er-p"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more

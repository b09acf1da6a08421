"""What a selection over the whole network did to the layers. Weights are scaled for layers that keep the fraction k of their
edges, and such a selection gives them other shares: the activations behind a layer are then as much larger as the root of its
share over k, and a layer that is left with next to nothing cuts the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

from popup.lab.config import Config
from popup.lab.report.results import Run
from popup.lab.runs.cell import label
from popup.lab.runs.controls import TICKET
from popup.lab.text import printable
from popup.source.gains import EVERYWHERE, read
from popup.source.recipe import SOURCE

STARVED = 0.1  # of its share k, below which a layer is taken to be cut
TOLD = 2.0     # times too large, or too small, from which on logits are told of
CUT, LARGE, SMALL = "a layer that is all but cut", "logits that are too large", "logits that are too small"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a ticket's shares: its kind, by what factor, and a sentence on what was done and what may help."""

    kind: str
    factor: float
    line: str


def shares_line(config: Config, result: Mapping[str, Any]) -> str:
    """What was done to the layers and what may help, in a sentence; nothing where each keeps about k."""
    fault = _fault(config, result)
    return fault.line if fault else ""


def shares_lines(runs: Sequence[Run]) -> list[str]:
    """The same for many: of each kind the worst ticket's, with how many there are."""
    tickets = [run for run in runs if run.result and run.config.task.role == TICKET and run.config.search.scope == "global"]
    found = [(fault, run) for run in tickets if (fault := _fault(run.config, run.found))]
    told = []
    for kind in (CUT, LARGE, SMALL):
        if alike := [pair for pair in found if pair[0].kind == kind]:
            worst, run = max(alike, key=lambda pair: pair[0].factor)
            have = "have {}, most of all" if alike[1:] else "has {}:"
            told.append(f"{len(alike)} of {len(tickets)} tickets selected over the whole network {have.format(kind)} "
                        f"{label(run.config)}. There {worst.line}.")
    return told


def heat(config: Config, result: Mapping[str, Any]) -> float:
    """By what factor logits are larger than meant where layers follow one another without norms: the product over layers of
    sqrt(kept / what weights are scaled for), 0 where one keeps nothing."""
    return sqrt(prod(row["kept"] / max(1.0, _k(config, row) * row["p_l"] * row["entries"]) for row in _weights(config, result)))


def _fault(config: Config, result: Mapping[str, Any]) -> Fault | None:
    if config.search.scope != "global" or not result["layers"]:
        return None
    return _starved(config, result) or _heated(config, result)


def _starved(config: Config, result: Mapping[str, Any]) -> Fault | None:
    worst = min(_weights(config, result), key=lambda row: _share(config, row))
    share = _share(config, worst)
    if share >= STARVED:
        return None
    return Fault(CUT, STARVED - share, (
        f"{printable(worst['name'])} is left with {worst['kept']:,} of {worst['edges']:,} edges, {share:.2g} of its share "
        f"k = {_k(config, worst):g}: --floor 0.3 leaves each layer that much of it"))


def _heated(config: Config, result: Mapping[str, Any]) -> Fault | None:
    """Of networks whose layers follow one another, and of those that a record of before says nothing of."""
    series = (result.get("diagnostics") or {}).get("series")
    found = heat(config, result)
    if config.source.scale != "final" or series is False or not found or max(found, 1 / found) < TOLD:
        return None
    better = _times(config.source.gain, found ** (-1 / len(_weights(config, result))))
    unless = "" if series else ", unless norms or shortcuts are between"
    return Fault(LARGE if found > 1 else SMALL, max(found, 1 / found), (
        f"layers keep other shares than {_meant(config)}: logits are {found:.3g} times what the weights are scaled for"
        f"{unless}; a {'smaller' if found > 1 else 'larger'} --gain, of {better} for these, may find a better ticket"))


def _meant(config: Config) -> str:
    """What layers were meant to keep, in words."""
    rule = config.source.ticket_density
    return f"k = {config.source.k:g}" if rule == SOURCE else f"--ticket-density {rule}"


def _times(gain: float | str, factor: float) -> str:
    """A gain as many times as large, in words of the command line."""
    return printable(" ".join(f"{'' if name == EVERYWHERE else f'{name}='}{factor * value:.3g}"
                              for name, value in read(gain).items()))


def _share(config: Config, row: Mapping[str, Any]) -> float:
    """What a layer keeps over its share k of the edges; a layer without edges has lost none."""
    return float(row["kept"] / (_k(config, row) * row["edges"])) if row["edges"] else 1.0


def _k(config: Config, row: Mapping[str, Any]) -> float:
    """What a layer's weights are scaled for: the k of all, or where the ticket has a density of its own the layer's."""
    return float(row.get("k") or config.source.k)


def _weights(config: Config, result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers without the biases, from which nothing is handed on (all, where there are biases alone)."""
    biases = config.source.searches_biases
    return [row for row in result["layers"] if not (biases and row["name"].endswith("bias"))] or result["layers"]

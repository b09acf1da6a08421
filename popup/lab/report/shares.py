"""What a selection over the whole network did to the layers. Weights are scaled for layers that keep the fraction k of their
edges, and such a selection gives them other shares: the activations behind a layer are then as much larger as the root of its
share over k, and a layer that is left with next to nothing cuts the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod, sqrt
from typing import Any

from popup.lab.config import Config
from popup.lab.report.results import Run
from popup.lab.runs.controls import TICKET
from popup.lab.text import printable

STARVED = 0.1  # of its share k, below which a layer is taken to be cut
TOLD = 2.0     # times too large, or too small, from which on logits are told of


def shares_line(config: Config, result: Mapping[str, Any]) -> str:
    """What was done to the layers and what may help, in a sentence; nothing where each keeps about k."""
    return _starved(config, result) or _hot(config, result)


def shares_lines(runs: Sequence[Run]) -> list[str]:
    """The same for many: of each kind the first ticket's, with how many there are."""
    tickets = [run for run in runs if run.result and run.config.task.role == TICKET and run.config.search.scope == "global"]
    told = []
    for kind in (_starved, _hot):
        lines = [line for run in tickets if (line := kind(run.config, run.found))]
        told += [f"In {len(lines)} of {len(tickets)} tickets selected over the whole network, {line}." for line in lines[:1]]
    return told


def heat(config: Config, result: Mapping[str, Any]) -> float:
    """By what factor logits are larger than meant where layers follow one another without norms: the product over layers of
    sqrt(kept / (k edges)), 0 where one keeps nothing."""
    return sqrt(prod(_share(config, row) for row in _weights(result)))


def _starved(config: Config, result: Mapping[str, Any]) -> str:
    if config.search.scope != "global" or not result["layers"]:
        return ""
    worst = min(_weights(result), key=lambda row: _share(config, row))
    if _share(config, worst) >= STARVED:
        return ""
    return (f"{printable(worst['name'])} is left with {worst['kept']:,} of {worst['edges']:,} edges, "
            f"{_share(config, worst):.2g} of its share k = {config.source.k:g}: --floor 0.3 leaves each layer that much of it")


def _hot(config: Config, result: Mapping[str, Any]) -> str:
    if config.search.scope != "global" or config.source.scale != "final" or _starved(config, result):
        return ""
    found, gain = heat(config, result), config.source.gain
    if max(found, 1 / found) < TOLD:
        return ""
    better = "" if isinstance(gain, str) else f", of {gain * found ** (-1 / len(_weights(result))):.2g} for these,"
    size = "smaller" if found > 1 else "larger"
    return (f"layers keep other shares than k = {config.source.k:g}: logits are {found:.3g} times what the weights are scaled "
            f"for, unless norms are between; a {size} --gain{better} may find a better ticket")


def _share(config: Config, row: Mapping[str, Any]) -> float:
    """What a layer keeps over its share k of the edges; a layer without edges has lost none."""
    return float(row["kept"] / (config.source.k * row["edges"])) if row["edges"] else 1.0


def _weights(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers without the biases, from which nothing is handed on (all, where there are biases alone)."""
    return [row for row in result["layers"] if not row["name"].endswith("bias")] or result["layers"]

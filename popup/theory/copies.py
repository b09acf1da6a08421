"""Which unit of the target each neuron (or channel) of a source layer stands for: its copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popup.theory.activation import Activation

NONE = -1


@dataclass(frozen=True)
class Copies:
    """The neurons of one source layer [neurons]: neuron j computes multiple[j] * x_unit[j], within error[j] on the domain,
    and at every place of a map.

    The units are numbered from 0, the constant 1 last; NONE stands for no unit. bend: what each is off by besides, by itself,
    as its activation is not linear.
    """

    unit: np.ndarray
    multiple: np.ndarray
    error: np.ndarray
    bend: np.ndarray | None = None

    def of(self, unit: int, in_order: bool = False) -> np.ndarray:
        """The neurons that stand for `unit`, the most exact first, or in the order in which they are there."""
        neurons = np.flatnonzero(self.unit == unit)
        return neurons if in_order else neurons[np.argsort(np.abs(self.error[neurons] / self.multiple[neurons]), kind="stable")]

    def at_taps(self, taps: int, inside: int, constant: int) -> Copies:
        """The inputs of a layer of that many taps: each tap of a neuron, next to each other, stands for its own unit, unit *
        taps + tap. A tap that lies in the padding somewhere reads 0 there, so the unit `constant` is one at tap `inside` alone.
        """
        tap = np.arange(taps)
        unit = np.where(self.unit[:, None] == NONE, NONE, self.unit[:, None] * taps + tap)
        unit[self.unit == constant] = np.where(tap == inside, constant * taps, NONE)
        bend = None if self.bend is None else np.repeat(self.bend, taps)
        return Copies(unit.reshape(-1), np.repeat(self.multiple, taps), np.repeat(self.error, taps), bend)

    def bent(self, activation: Activation, bound: float, last: int) -> Copies:
        """Univariate copies behind an activation that is not quite linear, of units up to `bound`: what it makes of the `last`,
        the constant, is known."""
        constant = self.unit == last
        bend = np.where(constant, 0, activation.bent(self.multiple * bound))
        return Copies(self.unit, np.where(constant, activation(self.multiple), self.multiple), self.error, bend)


def deal(weights: np.ndarray, branches: list[int], smallest: bool = False,
         signed: bool = False) -> tuple[Copies, np.ndarray]:
    """Layer 0: each neuron keeps one of the edges that S_ER left it, and so copies one input's branch, or the constant.

    weights: [neurons, inputs + 1], 0 off the edges, the last input the constant 1. An edge of weight w to x makes
    relu(w x) = |w| relu(sign(w) x): a multiple |w| of the branch sign(w). The units are dealt evenly: a neuron takes the
    unit that has the fewest copies so far, among equals the one of its largest weight (`smallest`: of its smallest, as for
    whole numbers, whose multiples leave gaps). `branches`: the signs that inputs take. `signed`: w x is
    copied as it is, of either sign. Returns the copies and the edges kept, bool like `weights`.
    """
    neurons, columns = weights.shape
    inputs, constant = columns - 1, len(branches) * (columns - 1)
    unit_of = {sign: np.arange(inputs) + place * inputs for place, sign in enumerate(branches)}
    units = np.full(weights.shape, NONE)
    for sign, numbers in unit_of.items():
        units[:, :-1] = np.where(np.sign(weights[:, :-1]) == sign, numbers, units[:, :-1])
    units[:, -1] = np.where(weights[:, -1] > 0, constant, NONE)
    if signed:
        units = np.where(weights != 0, np.arange(columns), NONE)
    counts, chosen = np.zeros(constant + 1), np.zeros(weights.shape, dtype=bool)
    size = np.abs(weights) / (2 * np.abs(weights).max(initial=1e-30)) * (-1 if smallest else 1)
    for neuron in range(neurons):
        offered = np.flatnonzero(units[neuron] != NONE)
        if len(offered):
            best = offered[np.argmin(counts[units[neuron, offered]] - size[neuron, offered])]
            chosen[neuron, best] = True
            counts[units[neuron, best]] += 1
    unit = np.where(chosen.any(1), np.where(chosen, units, NONE).max(1), NONE)
    multiple = np.where(chosen, weights, 0).sum(1, dtype=np.float64)
    return Copies(unit, multiple if signed else np.abs(multiple), np.zeros(neurons)), chosen


def pass_constant(weights: np.ndarray, multiples: np.ndarray, wanted: float) -> np.ndarray:
    """The edges by which neurons copy the constant: of positive weights the largest, until they reach `wanted`.

    weights [rows, copies] of the constant in the layer below, 0 off the edges; multiples [copies] its multiples there. Any
    positive multiple will do, since it is known exactly: all positive edges if they do not reach it. Returns bool [rows,
    copies].
    """
    values = np.maximum(weights * multiples, 0.0)
    order = np.argsort(-values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    kept = (before < wanted) & (ordered > 0)
    chosen = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(chosen, order, kept, axis=1)
    return chosen

"""What a task measures of a network: the number that a run is known by.

An image has one label, and what counts is the share that is named right. Of a text each place has a label, the byte that comes
next, and what counts is how many bits the network needs to tell it. Which of them a record is of is said by what it holds, for
each measure has a column of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, log
from typing import Any

import torch


@dataclass(frozen=True)
class Measure:
    """`column`: its name in metrics, results and tickets; `name`: in sentences; `unit`: behind a number; `heading`: above
    numbers; `inputs`: what it is of; `difference`: the unit of differences, `points` behind one; `places`: decimals of one
    value, `digits`: of a mean over seeds; `better` and `worse`: where a better value lies; `up`: 1 where that is above, else -1;
    `most`: the largest value that there can be; `a_nat`: what a nat of loss is in its unit, 0 where it is no loss. `of`: the
    value of a loss in nats and of labels named right, both summed over `count` labels."""

    column: str
    name: str
    unit: str
    heading: str
    inputs: str
    difference: str
    points: str
    places: int
    digits: int
    better: str
    worse: str
    up: int
    most: float
    a_nat: float
    of: Callable[[float, float, int], float]

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.{self.places}f}{self.unit}"


ACCURACY = Measure("test_accuracy", "accuracy", "%", "%", "images", "percentage points", "points", 2, 1, "above", "below", 1,
                   100.0, 0.0, lambda loss, right, count: 100 * right / count)
BITS = Measure("test_bits", "loss", " bits a byte", "bits", "windows", "bits a byte", "bits a byte", 4, 3, "below", "above", -1,
               inf, 1 / log(2), lambda loss, right, count: loss / count / log(2))
MEASURES = (ACCURACY, BITS)
OF_TOKENS = replace(BITS, unit=" bits a token", difference="bits a token", points="bits a token")  # that need not be bytes


def measure_of(labels: torch.Tensor) -> Measure:
    """What is measured where these are the labels: [n], or of texts [n, tokens]."""
    return ACCURACY if labels.dim() == 1 else BITS


def measure_in(record: Mapping[str, Any]) -> Measure | None:
    """What metrics, a result or what a ticket says of its run is measured by; None if it has no such number."""
    return next((measure for measure in MEASURES if record.get(measure.column) is not None), None)


def measured(record: Mapping[str, Any]) -> Measure:
    """The same of metrics and results that were read or made here, which have such a number."""
    found = measure_in(record)
    if found is None:
        raise ValueError(f"there is none of {', '.join(measure.column for measure in MEASURES)}")
    return found


def fitted(metrics: Mapping[str, Any]) -> Measure:
    """The same of metrics of popup.fit, which does not know whether tokens are bytes."""
    found = measured(metrics)
    return OF_TOKENS if found is BITS else found

"""fp32 beside bf16 on one network, timed in the same rounds: which is faster here, and whether `--precision auto` takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from popup.lab.bench.bench import Build, dense_step, interleaved, popup_step
from popup.lab.precision import Precision

PAIR, P = ("fp32", "bf16"), 0.2


@dataclass(frozen=True)
class Comparison:
    """Median seconds of a step of the dense network and of popup, and bf16's time over fp32's of popup's step in the same round:
    median and quartiles. `auto`: what --precision auto takes."""

    dense_fp32: float
    dense_bf16: float
    popup_fp32: float
    popup_bf16: float
    ratio: float
    low: float
    high: float
    auto: str

    @property
    def faster(self) -> str:
        """fp32, bf16, or neither, where the quartiles are on both sides of 1."""
        return "bf16" if self.high < 1 else "fp32" if self.low > 1 else "neither"

    def record(self) -> dict[str, float | str]:
        """What bench.json holds of it."""
        return {**asdict(self), "faster": self.faster}

    def line(self) -> str:
        """All of it in words."""
        dense, popup, faster = (self.dense_fp32, self.dense_bf16), (self.popup_fp32, self.popup_bf16), self.faster
        times = (f"fp32 beside bf16, in the same rounds: dense step {_in_ms(dense)}, popup at p = {P:g} {_in_ms(popup)}, "
                 f"bf16 taking {self.ratio:.2f} ({self.low:.2f}-{self.high:.2f}) of fp32's time")
        if faster == "neither":
            return f"{times}: neither is clearly faster here; --precision auto takes {self.auto}"
        if faster == self.auto:
            return f"{times}: {faster} is faster here, and --precision auto takes it"
        return f"{times}: {faster} is faster here, BUT --precision auto takes {self.auto}: pass --precision {faster}"


def _in_ms(pair: tuple[float, float]) -> str:
    return f"{pair[0] * 1e3:.2f} and {pair[1] * 1e3:.2f} ms"


def compare(build: Build, inputs: torch.Tensor, labels: torch.Tensor, rounds: int,
            tick: Callable[[], object] = lambda: None) -> Comparison:
    """Time both precisions of one network, which `build` makes, on one batch."""
    given = build, inputs, labels
    found = [*(dense_step(*given, wanted) for wanted in PAIR), *(popup_step(*given, wanted, P) for wanted in PAIR)]
    times = interleaved(found, rounds, tick)
    ratios = times[:, 3] / times[:, 2]
    dense_fp32, dense_bf16, popup_fp32, popup_bf16 = np.median(times, axis=0).tolist()
    ratio, low, high = np.percentile(ratios, (50, 25, 75)).tolist()
    return Comparison(dense_fp32, dense_bf16, popup_fp32, popup_bf16, ratio, low, high,
                      Precision.of(build().to(inputs.device), "auto").name)

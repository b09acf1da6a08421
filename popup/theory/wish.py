"""What a construction is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """What a plan is asked for: an output error `epsilon`, missed with probability at most `delta`; or one `tolerance` of
    every parameter, of which nothing is promised. `certain`: epsilon is to be proved from the edges that will be chosen.
    `copies`: q in all layers, in place of those that are planned. `weights` of the source; `doubled`: it has twice the
    target's depth."""

    epsilon: float = 0.01
    tolerance: float = 0.0
    delta: float = 0.05
    copies: int = 0
    weights: str = "uniform"
    doubled: bool = False
    certain: bool = False

    @property
    def promised(self) -> bool:
        """Whether something is promised of the outputs, and not of the parameters alone."""
        return not self.tolerance

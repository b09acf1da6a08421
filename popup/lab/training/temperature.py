"""A learned temperature: one float that a network's logits are multiplied by, learned beside the scores.

How sharp predictions can be is set by the size of the logits, so by frozen weights and a gain; a selection changes it little. The
factor changes no prediction, but the loss, and the gradient of every score.
"""

from __future__ import annotations

import torch

RATE = 0.1  # of the factor's logarithm, where the scores' is at its highest
MOST = 1.0  # by which the logarithm moves in a step: huge logits would send the factor to 0 in one, from where nothing learns


class Temperature:
    """The factor exp(`log`), 1 at first. `log` goes down the loss's gradient, without momentum, at RATE times what share of its
    highest rate `lr` the optimiser is at, by MOST at most."""

    def __init__(self, device: torch.device, lr: float) -> None:
        self.rate = RATE / lr
        self.log = torch.zeros((), device=device)
        self._slope = torch.zeros((), device=device)

    @property
    def factor(self) -> float:
        """What logits are multiplied by."""
        return float(self.log.exp())

    def scaled(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes] of which the loss is; nothing is differentiated here."""
        return logits.detach() * self.log.exp()

    def back(self, gradient: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
        """The loss's gradient by the logits, of that by the `scaled` ones [n, classes]. The factor's own is added up."""
        self._slope += (gradient * scaled).sum()
        return gradient * self.log.exp()

    def slope(self) -> torch.Tensor:
        """d loss / d `log` of the batch, a scalar; the next one begins."""
        found, self._slope = self._slope, torch.zeros_like(self._slope)
        return found

    def step(self, slope: torch.Tensor, rate: float) -> None:
        """A step down, where the optimiser's own is at `rate`."""
        self.log.sub_((slope * (self.rate * rate)).clamp(-MOST, MOST))

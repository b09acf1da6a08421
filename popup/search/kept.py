"""The effective weight of a layer that is kept from pass to pass, so that a pass writes only what has changed."""

from __future__ import annotations

import torch


class KeptWeight:
    """A weight [entries], what it shows [edges], and whether it may still be used. A copy or a pickle of it is empty.

    No attributes of the parametrization: to set one of an nn.Module takes longer than many a write to the weight.
    """

    __slots__ = ("made", "open", "shown", "versions", "weight")

    def __init__(self) -> None:
        self.weight: torch.Tensor | None = None
        self.shown: torch.Tensor | None = None  # the selection (bool) or the gate (float32)
        self.versions = (0, 0)                  # its own and those of the edges' values, when it was written to last
        self.made = 0                           # how often it has been made anew
        self.open = 0                           # passes that use it and still wait for their backward pass

    def fits(self, dtype: torch.dtype, values: torch.Tensor) -> bool:
        """Whether it is there, in `dtype` and beside `values`, and nobody else has written to either."""
        weight = self.weight
        return (weight is not None and weight.dtype == dtype and weight.device == values.device
                and self.versions == versions(weight, values))

    def renew(self) -> None:
        """It is made anew: passes that use the old one have that for themselves."""
        self.made, self.open = self.made + 1, 0

    def show(self, weight: torch.Tensor, gate: torch.Tensor, values: torch.Tensor) -> None:
        """It is `weight` from now on, and shows `gate`."""
        self.weight, self.shown, self.versions = weight, gate, versions(weight, values)

    def close(self, made: int) -> None:
        """A pass has had its backward pass, and used the weight that was the `made`-th."""
        if made == self.made and self.open:
            self.open -= 1

    def __reduce__(self) -> tuple:
        return KeptWeight, ()


def versions(*tensors: torch.Tensor) -> tuple[int, ...]:
    """How often torch has written to each; those of inference mode do not count."""
    return tuple(-1 if tensor.is_inference() else tensor._version for tensor in tensors)

"""How the mask moves from epoch to epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from popup.search.network import search_of


class Churn:
    """Compares S_P at the end of each epoch with the one before."""

    def __init__(self, net: nn.Module) -> None:
        self.search = search_of(net)
        self.last = self.search.select()
        self.ever = [mask.clone() for mask in self.last]

    def measure(self) -> dict[str, Any]:
        """`churn`, the fraction of kept edges that were not kept an epoch ago, and `never_selected`, the fraction of all
        edges that no epoch has ended with."""
        now = self.search.select()
        entered = sum(int((mask & ~before).sum()) for mask, before in zip(now, self.last, strict=True))
        self.ever = [seen | mask for seen, mask in zip(self.ever, now, strict=True)]
        kept, edges = sum(int(mask.sum()) for mask in now), sum(len(mask) for mask in now)
        self.last = now
        return {"churn": entered / kept, "never_selected": 1 - sum(int(seen.sum()) for seen in self.ever) / edges}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What it remembers, by name: bool [edges] each."""
        return {f"{what}/{place}": mask for what in ("last", "ever") for place, mask in enumerate(getattr(self, what))}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Remember what `tensors()` gave."""
        for what in ("last", "ever"):
            setattr(self, what, [tensors[f"{what}/{place}"] for place in range(len(self.last))])

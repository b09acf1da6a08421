"""A network whose batches are shared out to threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import nn


class InParts(nn.Module):
    """What `net` computes of a batch, each of so many threads a part of it.

    torch shares out every product by itself, and between two of them its threads spin: of a sparse network's many short ones
    that took half of the CPU time on a machine that did other work too. Each image is computed by itself.
    """

    def __init__(self, net: nn.Module, threads: int) -> None:
        super().__init__()
        self.net, self.threads = net, threads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.threads == 1 or len(x) < self.threads or x.device.type != "cpu":
            return self.net(x)
        with ThreadPoolExecutor(self.threads, initializer=partial(torch.set_num_threads, 1)) as pool:
            return torch.cat(list(pool.map(partial(self._part, torch.is_grad_enabled()), x.tensor_split(self.threads))))

    def _part(self, graded: bool, x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(graded):  # a thread does not know of its caller's
            return self.net(x)

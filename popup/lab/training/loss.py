"""The loss of a training step, and what a backward pass begins with: the loss's gradient by the logits.

torch's cross_entropy is a dozen small calls, each a node of autograd's graph, which in a step of a small network take a third
of the time that its products take. The gradient by the logits is known in closed form; the numbers are the same bit for bit,
as each product and quotient of torch's is rounded here too.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


@torch.no_grad()
def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float,
                  share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`share` times the cross-entropy with label smoothing, a scalar, and its gradient by `logits` (float32 [n, classes])."""
    logs = logits.log_softmax(1)
    loss = F.nll_loss(logs, labels)
    count, classes = logs.shape
    if smoothing:
        loss = loss * (1 - smoothing) + logs.sum(1).mean() * (-smoothing / classes)
    everywhere, at_label = (np.float32(share) * np.float32(part) / np.float32(-count)
                            for part in (smoothing / classes, 1 - smoothing))
    wanted = torch.full_like(logs, float(everywhere)).scatter_(1, labels[:, None], float(everywhere + at_label))
    return loss if share == 1 else loss * share, torch.ops.aten._log_softmax_backward_data(wanted, logs, 1, logs.dtype)

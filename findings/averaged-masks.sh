#!/usr/bin/env bash
# AveragedModel(use_buffers=True) with an EMA makes a bool mask the union of all it saw; a uint8 mask becomes 0, or 86 and 171.
# Met averaging a masked network; the manual says that buffers are averaged like parameters and names no dtype it cannot.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Masked(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("mask", torch.tensor([1, 0, 1, 0]).to(dtype))


def average(dtype, **how):
    """The averaged mask after three masks of two edges each; the fourth edge is in none of them."""
    network = Masked(dtype)
    averaged = AveragedModel(network, use_buffers=True, **how)
    for mask in ([1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0]):
        network.mask.copy_(torch.tensor(mask))
        averaged.update_parameters(network)
    return averaged.module.mask.tolist()


print("torch", torch.__version__)
seen = {}
for dtype in (torch.float32, torch.bool, torch.uint8):
    seen[f"{dtype} EMA 0.9"] = average(dtype, multi_avg_fn=get_ema_multi_avg_fn(0.9))
seen[f"{torch.uint8} mean"] = average(torch.uint8)
for name, mask in seen.items():
    print(f"{name:22}", [round(v, 2) if isinstance(v, float) else v for v in mask])
seen = list(seen.values())[1:]
expected = [[True, True, True, False], [0, 0, 0, 0], [86, 0, 171, 0]]
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

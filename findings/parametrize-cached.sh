#!/usr/bin/env bash
# In one parametrize.cached() block a new network at a freed one's address computes with the freed network's masked weight.
# Met scoring many candidate masks in one block; the cache is by id(module), and the manual says nothing of networks that end.
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
from torch.nn.utils import parametrize


class Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def wrong(networks):
    """How many of so many networks, each made, run once and dropped, give another's output."""
    count = 0
    for number in range(1, networks + 1):
        layer = nn.Linear(4, 4, bias=False)
        nn.init.constant_(layer.weight, float(number))
        parametrize.register_parametrization(layer, "weight", Mask(torch.eye(4)))
        count += layer(torch.ones(1, 4)).sum().item() != 4 * number
        del layer
    return count


print("torch", torch.__version__)
without = wrong(300)
with parametrize.cached():
    within = wrong(300)
print("300 networks without the cache, wrong outputs:", without)
print("300 networks in one cached() block, some outputs wrong:", within > 0)
sys.exit(0 if without == 0 and within > 0 else "changed: each network has its own weight now")
END

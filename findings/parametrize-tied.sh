#!/usr/bin/env bash
# remove_parametrizations on a masked head that is tied to an embedding writes the mask into the embedding as well.
# Met merging a mask into a tied head; the manual says that module[name] is set to its output, and nothing of its partner.
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


print("torch", torch.__version__)
zeros = []
for keep in (True, False):
    embedding, head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
    nn.init.ones_(embedding.weight)
    head.weight = embedding.weight
    parametrize.register_parametrization(head, "weight", Mask(torch.eye(4)))
    first = int((embedding.weight == 0).sum())
    parametrize.remove_parametrizations(head, "weight", leave_parametrized=keep)
    zeros.append((first, int((embedding.weight == 0).sum()), head.weight is embedding.weight))
    print(f"leave_parametrized={keep}: zeros in the embedding while masked, after: {zeros[-1][:2]}, still tied: {zeros[-1][2]}")
expected = [(0, 12, True), (0, 0, True)]
sys.exit(0 if zeros == expected else f"changed: expected {expected}")
END

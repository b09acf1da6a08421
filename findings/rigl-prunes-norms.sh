#!/usr/bin/env bash
# rigl-torch by default keeps linear layers dense and prunes the gains of LayerNorm, BatchNorm1d and GroupNorm, and embeddings.
# Met comparing with RigL; the source takes every module with a weight but BatchNorm2d. The README says: tested on ResNets only.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 torchvision==0.29.1 rigl-torch==0.5.2
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import importlib.metadata
import sys
import torch
from rigl_torch.RigL import RigLScheduler
from torch import nn

print(f"torch {torch.__version__} rigl-torch {importlib.metadata.version('rigl-torch')}")
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64),
                        nn.GroupNorm(2, 64), nn.Embedding(10, 64), nn.Conv2d(64, 8, 1), nn.BatchNorm2d(8))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
RigLScheduler(network, optimizer, dense_allocation=0.1, T_end=100)
kept = {}
for layer in network:
    kept.setdefault(type(layer).__name__, []).append((int(layer.weight.count_nonzero()), layer.weight.numel()))
for name, counts in kept.items():
    print(f"{name:11} nonzero, all: {counts}")
norms = [kept[name] for name in ("LayerNorm", "BatchNorm1d", "GroupNorm")]
right = kept["Linear"] == [(4096, 4096)] * 3 and norms == [[(7, 64)]] * 3 and kept["BatchNorm2d"] == [(8, 8)]
sys.exit(0 if right else "changed: the layers that are pruned are others")
END

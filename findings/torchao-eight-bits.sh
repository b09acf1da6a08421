#!/usr/bin/env bash
# torchao's 8-bit AdamW keeps its state in 32 bits for each parameter whose length is no multiple of 256, whatever its size.
# Met choosing an optimiser for one score an edge; the README names the saving, only a line of the code names the multiple.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 torchao==0.18.0
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import os
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # the state is the question, not the compiled step
import torch
import torchao
from torch import nn
from torchao.optim import AdamW8bit

print(f"torch {torch.__version__} torchao {torchao.__version__}")
kinds = {}
for edges in (65536, 65537, 1_000_000, 1_000_192):
    scores = nn.Parameter(torch.ones(edges))
    optimizer = AdamW8bit([scores])
    scores.grad = torch.ones(edges)
    optimizer.step()
    kinds[edges] = type(optimizer.state[scores]["exp_avg"]).__name__
    print(f"{edges:8} edges, {edges % 256:3} over a multiple of 256: state {kinds[edges]}")
expected = ["OptimState8bit", "Tensor", "Tensor", "OptimState8bit"]
sys.exit(0 if list(kinds.values()) == expected else f"changed: expected {expected}")
END

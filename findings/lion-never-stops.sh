#!/usr/bin/env bash
# Lion moves a parameter that had one gradient for ever, by the whole rate at each step: its float32 momentum never comes to 0.
# Met with edges whose unit dies; it steps by the momentum's sign, and 0.99 times fifty smallest float32 numbers rounds to fifty.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 lion-pytorch==0.2.5
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import importlib.metadata
import sys
import torch
from lion_pytorch import Lion
from torch import nn

print(f"torch {torch.__version__} lion-pytorch {importlib.metadata.version('lion-pytorch')}")
STEPS = 20_000  # exact numbers would be smaller than any of float32 after 9,900
moved = {}
for name, kind in (("Lion", Lion), ("Adam", torch.optim.Adam)):
    edge = nn.Parameter(torch.zeros(1))
    optimizer = kind([edge], lr=1e-4)
    edge.grad = torch.ones(1)
    optimizer.step()
    edge.grad = torch.zeros(1)
    last = 0
    for step in range(1, STEPS + 1):
        before = edge.item()
        optimizer.step()
        last = step if edge.item() != before else last
    moved[name] = last
    print(f"{name}: steps after the only gradient 20000, the last that moved the edge {last}, the edge {edge.item():.4f}, "
          f"its momentum {optimizer.state[edge]['exp_avg'].item():.3g}")
sys.exit(0 if moved["Lion"] == STEPS and moved["Adam"] < 1000 else "changed: Lion stops as well")
END

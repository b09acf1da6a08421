#!/usr/bin/env bash
# Optimizer.load_state_dict makes whole numbers and bools in a parameter's state floats like it: edge 16777217 becomes 16777216.
# Met resuming a sparse optimiser that holds its edges; the manual of load_state_dict is silent, the source casts all but 'step'.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import io
import sys
import torch
from torch import nn

print("torch", torch.__version__)
edges = torch.tensor([3, 257, 16777217])
seen = []
for kind in (torch.float32, torch.bfloat16):
    scores = nn.Parameter(torch.zeros(3, dtype=kind))
    optimizer = torch.optim.SGD([scores], lr=0.1)
    optimizer.state[scores] = {"edges": edges, "mask": torch.tensor([True, False, True])}
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file)
    resumed = torch.optim.SGD([scores], lr=0.1)
    resumed.load_state_dict(saved)
    state = resumed.state[scores]
    seen.append([part["edges"].long().tolist() for part in (saved["state"][0], state)])
    print(f"scores {kind}: edges in the file {seen[-1][0]}, as loaded {seen[-1][1]}; the mask is {state['mask'].dtype}")
expected = [[edges.tolist(), [3, 257, 16777216]], [edges.tolist(), [3, 256, 16777216]]]
sys.exit(0 if seen == expected and state["mask"].dtype == kind else f"changed: expected {expected}")
END

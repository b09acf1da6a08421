#!/usr/bin/env bash
# A fused optimiser's step is no in-place write to autograd: a backward pass behind it silently takes the new values for the old.
# Met asking torch's count of writes whether scores had moved; the manual is silent, pull request 133044 (closed) has the cause.
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

print("torch", torch.__version__)
found = {}
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
    for fused in (False, True):
        scores = nn.Parameter(torch.ones(3))
        optimizer = kind([scores], lr=0.5, fused=fused)
        loss = scores.square().sum()  # the gradient of this pass is 2 for each
        scores.grad, count = torch.ones(3), scores._version
        optimizer.step()
        scores.grad, count = None, scores._version - count
        try:
            loss.backward()
            seen = f"gradient {scores.grad[0]:.2f}, no error"
        except RuntimeError as error:
            seen = "RuntimeError: modified by an inplace operation" if "inplace operation" in str(error) else str(error)
        found[kind.__name__, fused] = count > 0, scores.grad is not None and bool((scores.grad != 2).all())
        print(f"{kind.__name__:8} fused={fused!s:5} moved to {scores[0].item():.2f}, writes counted {count}; {seen}")
changed = {key: value for key, value in found.items() if value != ((False, True) if key[1] else (True, False))}
sys.exit(f"changed: {changed}" if changed else 0)
END

#!/usr/bin/env bash
# Under torch.utils.checkpoint a mask of a generator of one's own is drawn anew in the backward pass: another mask, no error.
# Met sampling masks under gradient checkpointing; the manual speaks of the RNG state of devices, not of generators.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch
from torch.utils.checkpoint import checkpoint

print("torch", torch.__version__)


def run(generator, checked):
    torch.manual_seed(0)
    masks, scores = [], torch.ones(1000, requires_grad=True)

    def masked(scores):
        masks.append(torch.bernoulli(torch.full((1000,), 0.5), generator=generator))
        return (scores * masks[-1]).exp()

    (checkpoint(masked, scores, use_reentrant=False) if checked else masked(scores)).sum().backward()
    return int(((scores.grad != 0) != masks[0].bool()).sum())  # the gradient is 0 off the mask


wrong = {}
for own in (False, True):
    for checked in (False, True):
        wrong[own, checked] = run(torch.Generator().manual_seed(0) if own else None, checked)
        print(f"own generator {own!s:5} checkpoint {checked!s:5}: edges with another mask's gradient {wrong[own, checked]}")
sys.exit(0 if [count > 0 for count in wrong.values()] == [False, False, False, True] else "changed: the mask is the same again")
END

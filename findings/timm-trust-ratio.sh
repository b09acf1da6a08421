#!/usr/bin/env bash
# timm's LARS and LAMB step 20 times as far on a 1-D parameter: no weight decay for it, and without decay no trust ratio.
# Met training 1-D scores through create_optimizer_v2; its manual names the missing decay and not what goes with it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 timm==1.0.31
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn


class Twice(nn.Module):
    """The same numbers as a matrix and as a line of scores."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        numbers = torch.randn(64, 64) * 0.05
        self.matrix, self.line = nn.Parameter(numbers.clone()), nn.Parameter(numbers.flatten())


def steps(name):
    """The ratio of the first steps' lengths, line to matrix, for equal numbers and equal gradients."""
    network = Twice()
    optimizer = create_optimizer_v2(network, opt=name, lr=0.1, weight_decay=1e-4)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    gradient = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) * 1e-3
    network.matrix.grad, network.line.grad = gradient, gradient.flatten().clone()
    optimizer.step()
    matrix, line = ((now.detach() - old).norm() for now, old in zip(network.parameters(), before))
    return (line / matrix).item()


print(f"torch {torch.__version__} timm {timm.__version__}")
ratios = {name: steps(name) for name in ("sgd", "adamw", "lars", "lamb")}
for name, ratio in ratios.items():
    print(f"{name:6} the line of scores goes {ratio:.1f} times as far as the matrix")
expected = {"sgd": 1.0, "adamw": 1.0, "lars": 20.4, "lamb": 20.0}
right = all(abs(ratios[name] - ratio) < 0.2 for name, ratio in expected.items())
sys.exit(0 if right else f"changed: expected {expected}")
END

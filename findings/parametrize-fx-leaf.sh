#!/usr/bin/env bash
# A parametrization on a module of your own hides its inside from torch.fx: the traced graph has one node where it had four.
# Met looking for products in a traced graph; fx takes torch.nn's modules as leaves, and the new class says it is one of them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch
from torch import fx, nn
from torch.nn.utils import parametrize


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.out = nn.Linear(4, 4)

    def forward(self, x):
        return self.out(torch.relu(nn.functional.linear(x, self.weight)))


def products(network):
    """The nodes of the traced graph without its input and output, and those that call F.linear or a Linear."""
    names = [node.name for node in fx.symbolic_trace(network).graph.nodes][1:-1]
    return names, sum(name.startswith("linear") or name.endswith("out") for name in names)


print("torch", torch.__version__)
network = nn.Sequential(Block(), Block())
before = products(network)
print("before:", before, type(network[0]).__module__)
for block in network:
    parametrize.register_parametrization(block, "weight", nn.Identity())
after = products(network)
print("after: ", after, type(network[0]).__module__)
seen = (len(before[0]), before[1], len(after[0]), after[1], type(network[0]).__module__)
sys.exit(0 if seen == (8, 4, 2, 0, "torch.nn.utils.parametrize") else f"changed: {seen}")
END

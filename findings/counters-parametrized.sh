#!/usr/bin/env bash
# ptflops and torchinfo count a masked (parametrized) network's layers as 0 operations; thop counts its parameters as 0 too.
# Met in tables of costs: each looks a layer up by its exact class or its own parameters; none of the three warns of it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 ptflops==0.7.5 \
    torchinfo==1.8.0 thop==0.1.1.post2209072238
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
from importlib.metadata import version
import torch
import torchinfo
from ptflops import get_model_complexity_info
from thop import profile
from torch import nn
from torch.nn.utils import parametrize


class Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def network(masked):
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(288, 10, bias=False))
    for layer in (layers[0], layers[2]) if masked else ():
        mask = (torch.arange(layer.weight.numel()) % 2).view_as(layer.weight)
        parametrize.register_parametrization(layer, "weight", Mask(mask))
    return layers


print(*(f"{name} {version(name)}" for name in ("torch", "ptflops", "torchinfo", "thop")))
x = torch.randn(1, 3, 8, 8)
seen = {}
for masked in (False, True):
    flops = get_model_complexity_info(network(masked), (3, 8, 8), as_strings=False, print_per_layer_stat=False, backend="pytorch")
    summary = torchinfo.summary(network(masked), input_data=x, verbose=0)
    seen["ptflops", masked] = tuple(flops)
    seen["torchinfo", masked] = (summary.total_mult_adds, summary.total_params)
    seen["thop", masked] = tuple(int(count) for count in profile(network(masked), (x,), verbose=False))
for (name, masked), (operations, parameters) in seen.items():
    print(f"{name:10} {'masked' if masked else 'plain ':7} {operations:6} operations {parameters:5} parameters")
plain = {name: counts for (name, masked), counts in seen.items() if not masked}
masked = {name: counts for (name, masked), counts in seen.items() if masked}
expected = {"ptflops": (0, 3096), "torchinfo": (0, 3096), "thop": (0, 0)}
sys.exit(0 if min(plain.values()) >= (10656, 3096) and masked == expected else f"changed: expected {expected}")
END

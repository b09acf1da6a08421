#!/usr/bin/env bash
# functional_call(net, {'weight': w}) on a masked net with a right_inverse leaves its stored weights zeroed off the mask.
# Met trying weights on a frozen source; the manual of torch.func.functional_call says that the replacement is for the call.
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
from torch.func import functional_call
from torch.nn.utils import parametrize


class Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask

    def right_inverse(self, weight):
        return weight


def nonzeros(layer):
    return int((layer.parametrizations.weight.original != 0).sum())


print("torch", torch.__version__)
layer = nn.Linear(4, 4, bias=False)
nn.init.constant_(layer.weight, 3.0)
parametrize.register_parametrization(layer, "weight", Mask(torch.eye(4)))
before = nonzeros(layer)
output = functional_call(layer, {"weight": torch.full((4, 4), 7.0)}, (torch.ones(1, 4),))
after = nonzeros(layer)
print("output of the call:", output.tolist())
print(f"weights stored below the mask that are not zero: {before} before, {after} after the call")
layer.parametrizations.weight[0].mask.fill_(1.0)
whole = int((layer.weight != 0).sum())
print("edges of the source with the mask opened again:", whole)
sys.exit(0 if (before, after, whole) == (16, 4, 4) else "changed: the stored weights outlive the call")
END

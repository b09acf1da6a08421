#!/usr/bin/env bash
# PEFT's merge_and_unload() drops the whole LoRA update where a layer is masked by parametrize or by prune: no error, no trace.
# Met merging LoRA into a masked network; its manual says that the adapter is merged into the base weights, here a computed copy.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 peft==0.21.2
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
from importlib.metadata import version
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrize, prune


class Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def network(kind):
    torch.manual_seed(0)
    layers = nn.Sequential()
    layers.add_module("linear", nn.Linear(8, 8, bias=False))
    if kind == "parametrize":
        parametrize.register_parametrization(layers.linear, "weight", Mask(torch.eye(8)))
    if kind == "prune":
        prune.custom_from_mask(layers.linear, "weight", torch.eye(8))
    return layers


print(f"torch {torch.__version__} peft {version('peft')}")
seen, x = {}, torch.ones(2, 8)
for kind in ("plain", "parametrize", "prune"):
    base = network(kind)(x)
    tuned = get_peft_model(network(kind), LoraConfig(target_modules=["linear"], r=2, init_lora_weights=False)).eval()
    output = tuned(x)
    merged = tuned.merge_and_unload()(x)
    seen[kind] = (not torch.allclose(output, base), torch.allclose(merged, output, atol=1e-5), torch.equal(merged, base))
    print(f"{kind:12} LoRA changes the output, merged equals tuned, merged equals base: {seen[kind]}")
expected = {"plain": (True, True, False), "parametrize": (True, False, True), "prune": (True, False, True)}
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

#!/usr/bin/env bash
# Under inference_mode a TorchDispatchMode sees aten.linear and aten.conv2d whole; under no_grad it sees addmm and convolution.
# Met proving which weights reach a product: a watcher of mm, addmm and convolution sees nothing there; no manual says so.
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
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


print("torch", torch.__version__)
seen = {}
for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
    layer, conv = nn.Linear(4, 4), nn.Conv2d(1, 1, 3)
    with mode(), Watch() as watch:
        layer(torch.ones(2, 4))
        conv(torch.ones(1, 1, 3, 3))
    seen[mode.__name__] = [name for name in watch.seen if "ones" not in name]
    print(f"{mode.__name__:15}", seen[mode.__name__])
parts = ["aten.t.default", "aten.addmm.default", "aten.convolution.default"]
expected = {"enable_grad": parts, "no_grad": parts, "inference_mode": ["aten.linear.default", "aten.conv2d.default"]}
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

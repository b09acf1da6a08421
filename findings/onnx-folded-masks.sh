#!/usr/bin/env bash
# torch.onnx.export writes a masked layer's weights pruned while it has at most 8192 entries, and whole, mask apart, above.
# Met counting density in an exported file: the folding of constants has a limit of size that the exporter's manual leaves out.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import contextlib
import io
import sys
from importlib.metadata import version
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import parametrize


class Mask(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def exported(inputs, outputs):
    """The nodes of the exported layer, and of each stored matrix the part that is not zero."""
    layer = nn.Linear(inputs, outputs, bias=False).eval()
    nn.init.ones_(layer.weight)
    mask = (torch.arange(inputs * outputs) % 10 == 0).view(outputs, inputs)
    parametrize.register_parametrization(layer, "weight", Mask(mask))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        graph = torch.onnx.export(layer, (torch.ones(1, inputs),), dynamo=True).model_proto.graph
    stored = [numpy_helper.to_array(matrix) for matrix in graph.initializer]
    return [node.op_type for node in graph.node], [round(float((matrix != 0).mean()), 1) for matrix in stored]


print(f"torch {torch.__version__} onnx {version('onnx')} onnxscript {version('onnxscript')}")
seen = {outputs: exported(128, outputs) for outputs in (10, 64, 65, 512)}
for outputs, (nodes, densities) in seen.items():
    print(f"128 x {outputs:3} at density 0.1: nodes {nodes}, density of what is stored {densities}")
small = all("Mul" not in seen[outputs][0] and seen[outputs][1] == [0.1] for outputs in (10, 64))
large = all("Mul" in seen[outputs][0] and sorted(seen[outputs][1]) == [0.1, 1.0] for outputs in (65, 512))
sys.exit(0 if small and large else "changed: what is stored no longer depends on the size")
END

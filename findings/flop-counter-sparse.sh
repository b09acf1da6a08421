#!/usr/bin/env bash
# torch's FlopCounterMode counts a CSR product at 3% density as dense when written `@`, and as nothing as torch.sparse.mm.
# Met counting what a sparse ticket saves; the manual of the counter names neither layouts nor functions it does not know.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__)
torch.manual_seed(0)
dense = torch.where(torch.arange(64 * 64).reshape(64, 64) % 32 == 0, torch.randn(64, 64), torch.zeros(64, 64))
edges, x = dense.to_sparse_csr(), torch.randn(64, 8)
ways = {
    "dense @ x": lambda: dense @ x,
    "csr @ x": lambda: edges @ x,
    "F.linear(x.t(), csr)": lambda: torch.nn.functional.linear(x.t(), edges).t(),
    "torch.sparse.mm(csr, x)": lambda: torch.sparse.mm(edges, x),
    "torch.sparse.addmm(0, csr, x)": lambda: torch.sparse.addmm(torch.zeros(64, 8), edges, x),
}
counts = []
for name, product in ways.items():
    with FlopCounterMode(display=False) as counter:
        result = product()
    counts.append(counter.get_total_flops())
    print(f"{name:30} {counts[-1]:6} operations, result equal: {torch.allclose(result, dense @ x, atol=1e-5)}")
print("two operations an edge:", 2 * edges.values().numel() * 8)
expected = [65536, 65536, 65536, 0, 0]
sys.exit(0 if counts == expected else f"changed: expected {expected}")
END

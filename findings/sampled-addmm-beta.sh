#!/usr/bin/env bash
# torch.sparse.sampled_addmm(beta=0) multiplies its input by 0 and so keeps its NaNs; addmm with beta=0 ignores the input.
# Met giving uninitialised values as the pattern of S_ER; the manual of addmm promises it, that of sampled_addmm says nothing.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch

print("torch", torch.__version__)
pattern = torch.eye(3).to_sparse_csr()
left, right = torch.ones(3, 2), torch.ones(2, 3)
seen = {}
for name, value in (("zeros", 0.0), ("NaN", float("nan")), ("inf", float("inf"))):
    edges = torch.sparse_csr_tensor(pattern.crow_indices(), pattern.col_indices(), torch.full((3,), value), (3, 3))
    sampled = torch.sparse.sampled_addmm(edges, left, right, beta=0.0).values()
    dense = torch.addmm(torch.full((3, 3), value), left, right, beta=0.0).diagonal()
    seen[name] = (sampled.isnan().all().item(), dense.isnan().any().item())
    print(f"input of {name:5} beta=0: sampled_addmm {sampled.tolist()}  addmm {dense.tolist()}")
expected = {"zeros": (False, False), "NaN": (True, False), "inf": (True, False)}
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

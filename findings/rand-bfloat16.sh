#!/usr/bin/env bash
# torch.rand in bfloat16 is exactly 0 once in 512 (fp16: once in 4096), so `rand_like(w) < p` keeps p + 1/512 of the edges.
# Met drawing ER masks like LLM weights; the manual of torch.rand promises a uniform distribution and warns of no dtype.
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
entries = 1 << 24
excess = {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    weight = torch.empty(entries, dtype=dtype)
    for asked in (0.001, 0.01, 0.1):
        torch.manual_seed(0)
        density = (torch.rand_like(weight) < asked).double().mean().item()
        excess[dtype, asked] = round((density - asked) * 4096)
        print(f"{str(dtype):15} asked {asked:<6} got {density:.5f}: {excess[dtype, asked]}/4096 too many")
    torch.manual_seed(0)
    zeros = (torch.rand_like(weight) == 0).double().mean().item()
    excess[dtype, "zeros"] = round(zeros * 4096)
    print(f"{str(dtype):15} exact zeros {zeros:.5f}")
expected = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 8}
right = all(count == expected[dtype] for (dtype, _), count in excess.items())
sys.exit(0 if right else f"changed: expected {expected}, got {excess}")
END

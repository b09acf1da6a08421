#!/usr/bin/env bash
# safetensors' numpy save_file writes a transposed or strided array's memory under its shape: other entries come back, no error.
# Met handing over a mask that has inputs first; safetensors issue 825, open, says it of Fortran order: 0.7.0 did it right.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile numpy==2.4.6 safetensors==0.8.0
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print(f"numpy {np.__version__} safetensors {safetensors.__version__}")
mask = np.random.default_rng(0).random((64, 32)) < 0.1
copied = np.ascontiguousarray(mask.T)
layouts = {"as drawn": mask, "transposed": mask.T, "transposed, copied": copied, "every second row": mask[::2]}
wrong = {}
for name, array in layouts.items():
    save_file({"mask": array}, "mask.safetensors")
    loaded = load_file("mask.safetensors")["mask"]
    wrong[name] = int((loaded != array).sum())
    print(f"{name:18} edges saved {array.sum():3}, read back {loaded.sum():3}, shape kept: {loaded.shape == array.shape}, "
          f"entries that differ: {wrong[name]}")
sys.exit(0 if [count > 0 for count in wrong.values()] == [False, True, False, True] else "changed: the order is heeded now")
END

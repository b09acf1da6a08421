#!/usr/bin/env bash
# torch.inference_mode(False) does not leave things as they are: inside torch.no_grad() it turns gradients on.
# Met with a flag that chooses the mode of an evaluation; the manual says that it enables or disables inference mode only.
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
score = torch.ones(1, requires_grad=True)
seen = []
with torch.no_grad():
    seen.append((score * 2).requires_grad)
    with torch.inference_mode(False):
        seen.append((score * 2).requires_grad)
    seen.append((score * 2).requires_grad)
    with torch.inference_mode(True), torch.inference_mode(False):
        seen.append((score * 2).requires_grad)
print("a product of scores wants a gradient, in no_grad:", seen[0])
print("in inference_mode(False) inside no_grad:", seen[1], "| after it:", seen[2])
print("in inference_mode(False) inside inference_mode inside no_grad:", seen[3])
sys.exit(0 if seen == [False, True, False, True] else "changed: no_grad holds inside inference_mode(False)")
END

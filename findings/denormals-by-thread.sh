#!/usr/bin/env bash
# torch.set_flush_denormal acts on one thread: after the first parallel operation it flushes one part of a tensor only.
# Met with old momentum of unselected edges; the manual speaks of the CPU. Set early, the other threads never stop flushing.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import subprocess
import sys

SHARED = '''
import torch

torch.set_num_threads(2)


def flushed(values):
    """Of each half of the tensor, the part of the products below 1e-38 that became 0."""
    return (values * 1e-3 == 0).float().reshape(2, -1).mean(1).tolist()

'''
EARLY = SHARED + '''
torch.set_flush_denormal(True)
values = torch.full((1 << 20,), 1e-37)
print("set before the threads start, on:", flushed(values))
torch.set_flush_denormal(False)
print("set before the threads start, off again:", flushed(values))
'''
LATE = SHARED + '''
values = torch.full((1 << 20,), 1e-37)
print("not set:", flushed(values))
torch.set_flush_denormal(True)
print("set after the threads started, on:", flushed(values))
torch.set_flush_denormal(False)
print("set after the threads started, off again:", flushed(values))
'''
import torch

print("torch", torch.__version__)
lines = []
for code in (EARLY, LATE):  # each in a process of its own, since a thread keeps its mode
    lines += subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
print(*lines, sep="\n")
seen = [line.split(": ")[1] for line in lines]
expected = ["[1.0, 1.0]", "[0.0, 1.0]", "[0.0, 0.0]", "[1.0, 0.0]", "[0.0, 0.0]"]
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

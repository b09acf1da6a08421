#!/usr/bin/env bash
# torch.manual_seed takes 64 bits and its CPU generator drops the upper 32: seeds s and s + n * 2**32 draw the same numbers.
# Met naming streams by a 64-bit hash; the documentation gives -2**63 to 2**64 - 1 as the range and says nothing of this.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch

def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return generator.initial_seed(), torch.rand(4, generator=generator)

print("torch", torch.__version__)
same = []
for layer in (0, 1, 2, 1 << 31):
    named, numbers = draw((layer << 32) | 7)
    same.append(named == (layer << 32) | 7 and torch.equal(numbers, draw(7)[1]))
    print(f"layer {layer:<10} seed {named:<20} first draws {[round(v, 4) for v in numbers.tolist()]}")
low = torch.equal(draw(8)[1], draw(7)[1])
print("every layer has the same stream:", all(same), "| seed 8 has the stream of seed 7:", low)
sys.exit(0 if all(same) and not low else "changed: the upper bits of the seed count now")
END

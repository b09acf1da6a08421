#!/usr/bin/env bash
# numpy's default_rng([seed, 0]) is default_rng(seed): zeros at the end of a seed of up to four words make no difference.
# Met naming layers (seed, layer): layer 0 has the stream of the data loader's bare seed; SeedSequence's manual is silent.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import numpy

print("numpy", numpy.__version__)
bare = numpy.random.default_rng(7).random()
same = {}
for seed in ([7], [7, 0], [7, 0, 0], [7, 0, 0, 0], [7, 0, 0, 0, 0], [0, 7], [7, 1], [7 + (1 << 32)]):
    same[str(seed)] = numpy.random.default_rng(seed).random() == bare
    print(f"{str(seed):18} has the stream of 7: {same[str(seed)]}")
pair = numpy.random.default_rng([7, 1]).random() == numpy.random.default_rng(7 + (1 << 32)).random()
print("[7, 1] has the stream of 7 + 2**32:", pair)
expected = [True, True, True, True, False, False, False, False]
sys.exit(0 if list(same.values()) == expected and pair else f"changed: expected {expected}")
END

#!/usr/bin/env bash
# numpy's Philox.advance(1) skips four draws, not one, and throws away what was left of the block of four it stood in.
# Met jumping to an edge's place in a layer's stream; the documentation says it advances as if `delta` draws have occurred.
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
stream = list(numpy.random.Philox(0).random_raw(40))
places = {}
for drawn in (0, 1, 4):
    for delta in (1, 2):
        bits = numpy.random.Philox(0)
        bits.random_raw(drawn)
        bits.advance(delta)
        places[drawn, delta] = stream.index(bits.random_raw())
        print(f"{drawn} drawn, advance({delta}): place {places[drawn, delta]}, by the manual's words {drawn + delta}")
other = numpy.random.PCG64(0)
other.advance(1)
plain = list(numpy.random.PCG64(0).random_raw(40)).index(other.random_raw())
print("PCG64, advance(1): at", plain)
expected = {(0, 1): 4, (0, 2): 8, (1, 1): 8, (1, 2): 12, (4, 1): 8, (4, 2): 12}
sys.exit(0 if places == expected and plain == 1 else f"changed: expected {expected}")
END

#!/usr/bin/env bash
# jax.random.fold_in(key, i) is split(key, n)[i] for every n: the two ways to a further stream meet.
# Met naming a stream a layer; the manual of neither says it. jax pull request 13341 made it so, where threefry is partitionable.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile jax==0.10.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import jax
import numpy as np

print(f"jax {jax.__version__} numpy {np.__version__}, partitionable by default: {jax.config.jax_threefry_partitionable}")
seen = {}
for partitionable in (jax.config.jax_threefry_partitionable, False):
    jax.config.update("jax_threefry_partitionable", partitionable)
    key = jax.random.key(0)
    weights, scores = jax.random.split(key)  # streams for weights and scores, then one for each layer's mask
    frozen = jax.random.uniform(weights, (1000,), minval=-1.0)
    mask = jax.random.uniform(jax.random.fold_in(key, 0), (1000,)) < 0.5
    shared = [bool((jax.random.fold_in(key, i) == jax.random.split(key, 5)[i]).all()) for i in range(5)]
    seen[partitionable] = (all(shared), any(shared), int((frozen[mask] > 0).sum()), int(mask.sum()))
    print(f"partitionable {partitionable!s:5}: fold_in is split: {shared}, kept weights above 0: {seen[partitionable][2:]}")
sys.exit(0 if seen.get(True, ())[:3] == (True, True, 0) and not seen[False][1] else "changed: fold_in is not split")
END

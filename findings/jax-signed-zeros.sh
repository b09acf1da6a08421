#!/usr/bin/env bash
# jax.lax.top_k takes 0.0 before -0.0, jnp.argpartition too; jnp.argsort and numpy take them for equal, the lower index first.
# Met ranking scores times a mask; the manual of top_k says that of equal elements the lower index comes first, and 0.0 == -0.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile jax==0.10.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import jax
import jax.numpy as jnp
import numpy as np

print(f"jax {jax.__version__} numpy {np.__version__}")
scores, mask = np.array([-3.0, 2.0, -1.0, 5.0, 4.0], np.float32), np.array([0, 0, 0, 0, 1], np.float32)
product = jnp.array(scores * mask)
print("scores times mask:", np.asarray(product), "all but the last are equal:", bool((product[:4] == 0).all()))
kept = {
    "lax.top_k": jax.lax.top_k(product, 3)[1],
    "jnp.argpartition": jnp.argpartition(-product, 2)[:3],
    "jnp.argsort": jnp.argsort(-product, stable=True)[:3],
    "np.argsort": np.argsort(-np.asarray(product), kind="stable")[:3],
}
kept = {name: sorted(map(int, indices)) for name, indices in kept.items()}
for name, indices in kept.items():
    print(f"{name:16} keeps {indices}")
expected = [[1, 3, 4], [1, 3, 4], [0, 1, 4], [0, 1, 4]]
sys.exit(0 if list(kept.values()) == expected else f"changed: expected {expected}")
END

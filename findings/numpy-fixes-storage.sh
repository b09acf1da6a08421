#!/usr/bin/env bash
# torch: a tensor that was once read by .numpy() has a storage that cannot be resized any more, also when the array is long gone.
# Met under FSDP2 (fully_shard), which frees gathered parameters so; np.from_dlpack and tolist leave the storage as it was.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import numpy as np
import torch

print(f"torch {torch.__version__} numpy {np.__version__}")


def resizable(read):
    """Whether a tensor's storage can still be freed and filled anew once `read` has looked at it and let go of it."""
    tensor = torch.ones(8)
    read(tensor)
    before = tensor.untyped_storage().resizable()
    try:
        tensor.untyped_storage().resize_(0)
    except RuntimeError as error:
        return before, str(error).splitlines()[0]
    return before, "freed"


found = {"nothing": resizable(lambda tensor: None), "tolist": resizable(torch.Tensor.tolist),
         "np.from_dlpack": resizable(lambda tensor: np.from_dlpack(tensor).sum()),
         "numpy": resizable(lambda tensor: tensor.numpy().sum())}
for name, (before, after) in found.items():
    print(f"read by {name}: resizable {before}, {after}")
freed = all(found[name] == (True, "freed") for name in ("nothing", "tolist", "np.from_dlpack"))
sys.exit(0 if freed and not found["numpy"][0] and "resiz" in found["numpy"][1] else "changed: numpy() leaves storages as they were now")
END

#!/usr/bin/env bash
# timm's CoaT uses one position encoding in several blocks: its state dict has 546 tensors where it has 326 parameters.
# Met counting masks by module path; named_parameters() lists one of the paths, and create_model says nothing of it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 timm==1.0.31
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import timm
import torch
from torch import nn

print(f"torch {torch.__version__} timm {timm.__version__}")
seen = {}
for name in ("coat_tiny", "vit_tiny_patch16_224"):
    network = timm.create_model(name, num_classes=10)
    convolutions, paths = (
        sum(isinstance(module, nn.Conv2d) for _, module in network.named_modules(remove_duplicate=once)) for once in (True, False)
    )
    seen[name] = (len(list(network.parameters())), len(network.state_dict()), convolutions, paths)
    print(f"{name}: parameters, tensors in the state dict, convolutions, paths to them: {seen[name]}")
coat, vit = seen.values()
sys.exit(0 if coat[:2] == (326, 546) and coat[2] < coat[3] and vit[0] == vit[1] else "changed: CoaT shares otherwise now")
END

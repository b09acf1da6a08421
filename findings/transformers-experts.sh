#!/usr/bin/env bash
# In one transformers release experts.gate_up_proj is [experts, out, in] in Mixtral and [experts, in, out] in GPT-OSS, Llama 4.
# Met reading fan-in for masks of 3-D experts; no manual gives the order, and torch's own fan of such a tensor is neither.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 transformers==5.24.0
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import sys
import torch
import transformers
from torch.nn import init

transformers.logging.set_verbosity_error()
SIZES = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
             vocab_size=50, num_local_experts=4)
CONFIGS = {
    "Mixtral": transformers.MixtralConfig(**SIZES),
    "GPT-OSS": transformers.GptOssConfig(head_dim=16, **SIZES),
    "Llama 4": transformers.Llama4TextConfig(**SIZES),
}
print(f"torch {torch.__version__} transformers {transformers.__version__}")
seen = {}
for name, config in CONFIGS.items():
    network = transformers.AutoModelForCausalLM.from_config(config)
    [weight] = [value for key, value in network.named_parameters() if key.endswith("experts.gate_up_proj")]
    fan = init._calculate_fan_in_and_fan_out(weight)[0]
    seen[name] = (tuple(weight.shape), fan)
    print(f"{name}: 32 inputs, 80 outputs, gate_up_proj {tuple(weight.shape)}, fan-in as torch.nn.init takes it {fan}")
expected = {"Mixtral": ((4, 80, 32), 2560), "GPT-OSS": ((4, 32, 80), 2560), "Llama 4": ((4, 32, 80), 2560)}
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

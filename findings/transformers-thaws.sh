#!/usr/bin/env bash
# transformers' from_pretrained makes parameters trainable that the constructor has frozen, in the library's own networks too.
# Met saving frozen random weights beside learned scores; seen in core_model_loading.py, and the manual says nothing of it.
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
from torch import nn


class Masked(transformers.PreTrainedModel):
    config_class = transformers.PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.weight = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.scores = nn.Parameter(torch.ones(4, 4))
        self.post_init()


def frozen(network):
    return [name for name, parameter in network.named_parameters() if not parameter.requires_grad]


print(f"torch {torch.__version__} transformers {transformers.__version__}")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
whisper = transformers.WhisperModel(transformers.WhisperConfig(d_model=12, encoder_layers=1, decoder_layers=1))
seen = []
for network in (Masked(transformers.PretrainedConfig()), whisper):
    network.save_pretrained("saved")
    plain = type(network)(network.config)
    plain.load_state_dict(network.state_dict())
    loaded = type(network).from_pretrained("saved")
    seen.append([frozen(each) for each in (network, plain, loaded)])
    print(f"{type(network).__name__}: frozen as built, after load_state_dict, after from_pretrained: {seen[-1]}")
expected = [[names, names, []] for names in (["weight"], ["encoder.embed_positions.weight"])]
sys.exit(0 if seen == expected else f"changed: expected {expected}")
END

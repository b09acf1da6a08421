#!/usr/bin/env bash
# Lightning's ModelPruning rewinds to the first weights once: on a CPU its saved copy is then the weight itself and trains on.
# Met comparing with iterative pruning; its manual gives rewinding after each pruning as what use_lottery_ticket_hypothesis does.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-compile torch==2.14.1 numpy==2.4.6 pytorch-lightning==2.6.6
cd "$folder"
"$folder/env/bin/python" -B -W ignore - <<'END'
import logging
import sys
from importlib.metadata import version
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, ModelPruning
from torch import nn

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)
        self.first = self.linear.weight.detach().clone()

    def training_step(self, batch, number):
        return (self.linear(batch[0]) - 1).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Look(Callback):
    """At the start of each epoch: the density, and whether the edges have their first weights."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, network):
        mask = getattr(network.linear, "weight_mask", torch.ones(8, 8))
        weight = getattr(network.linear, "weight_orig", network.linear.weight).detach()
        self.seen.append(torch.equal(weight * mask, network.first * mask))
        print(f"epoch {trainer.current_epoch} density {mask.mean():.2f} starts from the first weights: {self.seen[-1]}")


print(f"torch {torch.__version__} pytorch-lightning {version('pytorch-lightning')}")
torch.manual_seed(0)
network, look = Network(), Look()
pruning = ModelPruning("l1_unstructured", [(network.linear, "weight")], amount=0.3, use_lottery_ticket_hypothesis=True,
                       use_global_unstructured=False)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 8)), batch_size=16)
lightning.Trainer(max_epochs=4, accelerator="cpu", callbacks=[pruning, look], logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False).fit(network, data)
expected = [True, True, False, False]
sys.exit(0 if look.seen == expected else f"changed: expected {expected}")
END

"""Lightning: its script runs and goes on from a checkpoint, and the callback does what a loop of one's own does."""

import warnings

import pytest
import torch
from torch import nn

import popup
from popup.callbacks import lightning_callback
from popup.search.network import is_attached, search_of
from tests.trainers.scripts import run, scripts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 2


def test_the_script_runs_and_its_search_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = scripts("Lightning")
    found = run(script)
    assert search_of(found["net"]).steps == search_of(found["resumed"]).steps == 24
    assert search_of(found["net"]).progress == search_of(found["resumed"]).progress == 1


def build(method="gem_miner"):
    return popup.attach(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)), er_p=0.8, k=0.5, method=method)


class Module(lightning.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, place):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(popup.scores(self.net) if is_attached(self.net) else self.net.parameters(), lr=0.5)


def train(net, batch=8, **options):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), batch_size=batch)
    lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                      enable_checkpointing=False, callbacks=[lightning_callback()], **options).fit(Module(net), loader)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_advances_and_adds_the_penalty_as_a_loop_of_ones_own(accumulate):
    net, own = build(), build()
    train(net, 8 // accumulate, max_epochs=5, accumulate_grad_batches=accumulate)
    optimizer = torch.optim.SGD(popup.scores(own), lr=0.5)
    for step in range(5):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(own.train()(IMAGES), LABELS) + popup.penalty(own)).backward()
        optimizer.step()
        popup.advance(own, (step + 1) / 5)
    assert search_of(net).steps == search_of(own).steps == 5 and search_of(net).progress == 1
    for mine, theirs in zip(popup.scores(net), popup.scores(own), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_what_it_cannot_do_is_one_line():
    with pytest.raises(popup.UsageError, match=r"has 0 attached networks in it: .*popup\.attach"):
        train(nn.Linear(6, 2), max_epochs=1)
    with pytest.raises(popup.UsageError, match=r"the trainer has no end.*give Trainer max_epochs or max_steps"):
        train(build(), max_epochs=-1)

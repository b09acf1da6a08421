"""timm's pieces: their script runs and goes on from a checkpoint; averages of networks are tickets whatever the method."""

import warnings

import pytest
import torch
from torch import nn

import popup
from popup.search.methods import METHODS
from popup.search.network import search_of
from tests.trainers.scripts import run, scripts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("timm")
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV2, ModelEmaV3

pytestmark = pytest.mark.filterwarnings("ignore")
INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def test_the_script_runs_and_its_search_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = scripts("timm")
    found = run(script)
    assert search_of(found["net"]).steps == search_of(found["resumed"]).steps == 24
    assert search_of(found["net"]).progress == search_of(found["resumed"]).progress == 1
    right = [(net(found["images"]).argmax(1) == found["labels"]).float().mean() for net in (found["net"], found["average"])]
    assert min(right) > 0.7


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


AVERAGES = {"ModelEmaV2": ModelEmaV2, "ModelEmaV3": ModelEmaV3, "ModelEmaV3 one by one": lambda net, decay: ModelEmaV3(
    net, decay, foreach=False), "AveragedModel": lambda net, decay: torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("method", METHODS)
def test_an_average_is_a_ticket_of_the_same_edges(method, average):
    settings = popup.SearchSettings(method=method, redraw_every=3, redraw_rate=0.5)
    net = popup.attach(build(), er_p=0.8, k=0.5, search=settings)
    ema = AVERAGES[average](net, decay=0.6)
    optimizer = create_optimizer_v2(net, opt="sgd", lr=0.5, weight_decay=0.01)
    for step in range(10):
        optimizer.zero_grad()
        (net(INPUTS).square().mean() + popup.penalty(net)).backward()
        optimizer.step()
        popup.advance(net, (step + 1) / 10)
        (ema.update if hasattr(ema, "update") else ema.update_parameters)(net)
    ticket = popup.extract(ema.module)
    for mine, whole in zip(ticket.layers, popup.extract(net).layers, strict=True):
        assert mine.kept == whole.kept
    plain = ticket.apply(build()).eval()
    assert torch.allclose(plain(INPUTS), ema.module.eval()(INPUTS), atol=1e-5) and bool(plain(INPUTS).isfinite().all())

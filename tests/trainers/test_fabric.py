"""Lightning Fabric: popup's functions take what it has set up, as they take other wrappers."""

import warnings

import pytest
import torch
from torch import nn

import popup

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fabric = pytest.importorskip("lightning.fabric")

pytestmark = pytest.mark.filterwarnings("ignore")
INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 2


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def attached():
    return popup.attach(build(), er_p=0.8, k=0.5, method="gem_miner")


def train(net, optimizer, steps, backward):
    for step in steps:
        optimizer.zero_grad()
        backward(nn.functional.cross_entropy(net(INPUTS), LABELS) + popup.penalty(net))
        optimizer.step()
        popup.advance(net, (step + 1) / 6)


def test_a_search_in_fabric_is_saved_goes_on_and_ends_as_one_without(tmp_path):
    own = attached()
    train(own, torch.optim.SGD(popup.scores(own), lr=0.5, momentum=0.9), range(6), torch.Tensor.backward)
    tool = fabric.Fabric(accelerator="cpu", devices=1)
    for steps in (range(3), range(3, 6)):
        plain = attached()
        net, optimizer = tool.setup(plain, torch.optim.SGD(popup.scores(plain), lr=0.5, momentum=0.9))
        if steps[0]:
            tool.load(tmp_path / "half.ckpt", {"net": net, "optimizer": optimizer})
        train(net, optimizer, steps, tool.backward)
        tool.save(tmp_path / "half.ckpt", {"net": net, "optimizer": optimizer})
    assert all(map(torch.equal, popup.scores(net), popup.scores(own))) and popup.densities(net) == popup.densities(own)
    assert repr(popup.summary(net, INPUTS)) == repr(popup.summary(own, INPUTS))
    assert torch.equal(popup.extract(net).apply(build()).eval()(INPUTS), popup.merge(net).eval()(INPUTS))
    assert popup.detach(net) is plain


def test_what_fabric_has_set_up_is_not_attached():
    with pytest.raises(popup.UsageError, match=r"wraps a network.*attach the network itself"):
        popup.attach(fabric.Fabric(accelerator="cpu", devices=1).setup_module(build()), er_p=0.5)

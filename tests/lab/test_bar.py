"""popup.fit's bar: in a notebook one, elsewhere none; and what it returns is short."""

import sys
import types

import pytest
import torch
from torch import nn

import popup


def fitted(on_epoch):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    images = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    split = images, (images[:, 0] > 0).long()
    return popup.fit(net, split, split, popup.Config.from_flat({"epochs": 3, "batch_size": 8}), on_epoch)


@pytest.mark.parametrize("notebook", [False, True])
def test_a_bar_shows_epochs_in_a_notebook_alone(notebook, monkeypatch, capsys):
    if notebook:
        pytest.importorskip("tqdm")
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    seen = []
    outcome = fitted(lambda metrics: seen.append(metrics["epoch"]))
    assert seen == [1, 2, 3]
    assert ("3/3" in capsys.readouterr().err) == notebook
    said = f"Outcome({outcome.test_accuracy:.2f}% after 3 epochs in fp32, computed dense; the proof holds)"
    assert repr(outcome) == said
    assert outcome._repr_html_().count("<tr>") == 4

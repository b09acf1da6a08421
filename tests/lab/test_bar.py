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


def test_of_a_text_the_bar_tells_bits_a_token(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    tokens = torch.arange(320).view(32, 10) % 5
    split = tokens, (tokens + 1) % 5
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))
    with pytest.warns(UserWarning, match="stay dense"):
        outcome = popup.fit(net, split, split, popup.Config.from_flat({"epochs": 2, "batch_size": 8}))
    assert "2/2 [" in (said := capsys.readouterr().err) and f"{outcome.value:.4f} bits a token" in said
    with pytest.raises(popup.UsageError, match=r"has no accuracy: outcome\.value is its loss in bits a token"):
        _ = outcome.test_accuracy

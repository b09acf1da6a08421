"""Features, one row of numbers an input, are no windows of tokens: a data set of them is searched, verified and exported."""

import pytest
import torch

import popup
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.commands.rebuild import recorded_image
from popup.lab.data.dataset import Dataset
from popup.lab.data.datasets import DATASETS
from popup.lab.inputs import Window, blank, called, is_window, logits_shape, noise

QUICK = ["--dataset", "table", "--epochs", "3", "--widths", "16", "8", "--threads", "1"]


def table(request, dtype=torch.float32):
    """Which of two halves of eight numbers is larger."""
    rows = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    labels = (rows[:, :4].sum(1) > rows[:, 4:].sum(1)).long()
    rows = (rows * 30 + 128).clamp(0, 255).to(dtype) if dtype is torch.uint8 else rows.to(dtype)
    return Dataset("a table", 2, (rows[:200], labels[:200]), (rows[200:], labels[200:]))


@pytest.fixture
def ticket(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "table", table)
    assert main([*QUICK, "--model", "mlp", "--er-p", "0.8", "--out", str(tmp_path)], MODELS) == 0
    (path,) = tmp_path.glob("*/ticket.safetensors")
    return path


def test_features_are_searched_verified_evaluated_and_exported(ticket, capsys):
    found = popup.load(ticket)
    assert recorded_image(found) == ((8,), 2) and not is_window(recorded_image(found)[0])
    assert found.about["test_accuracy"] > 60
    assert main(["verify", str(ticket)], MODELS) == main(["eval", str(ticket)], MODELS) == 0
    told = capsys.readouterr().out
    assert "repeated exactly" in told and "BROKEN" not in told and "at the point of use" in told
    assert main(["export", str(ticket), str(ticket.parent / "out.pt2")], MODELS) == 0
    assert "its inputs are features [8]" in capsys.readouterr().out
    rows = table(None).test[0]
    program = torch.export.load(ticket.parent / "out.pt2").module()
    torch.testing.assert_close(program(rows), found.apply(MODELS["mlp"]((8,), 2, (16, 8))).eval()(rows))


@pytest.mark.parametrize(("arguments", "words"), [
    (["--model", "gpt"], "model 'gpt' cannot be built for features [8]"),
    (["--model", "conv2"], "cannot be built for features [8]"),
    (["--model", "mlp", "--augment", "flip"], "augment")])
def test_what_features_cannot_be_used_with_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "table", table)
    assert main([*QUICK, *arguments, "--out", str(tmp_path)], MODELS) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1


def test_a_ticket_of_features_is_not_evaluated_on_tokens(ticket, monkeypatch, capsys):
    tokens = torch.arange(160).view(20, 8) % 2
    monkeypatch.setitem(DATASETS, "table", lambda request: Dataset("tokens", 2, (tokens, tokens), (tokens, tokens)))
    assert main(["eval", str(ticket), "--dataset", "table"], MODELS) == 2
    assert "has windows of tokens [8] of 2 classes; the ticket is for features [8] and 2" in capsys.readouterr().err


def test_an_input_is_what_its_shape_says():
    assert blank((8,)).dtype is torch.float32 and blank(Window((8,))).dtype is torch.int64
    assert noise((8,), 3, 5).dtype is torch.float32 and noise(Window((8,)), 3, 5).max() < 3
    assert logits_shape((8,), 3, 2) == (2, 3) and logits_shape(Window((8,)), 3, 2) == (2, 8, 3)
    assert table(None).image == (8,) and not is_window(table(None).image)
    assert called(table(None, torch.int64).image) == "sequences of tokens"

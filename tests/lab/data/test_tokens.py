"""Sequences of tokens with one label each, and rows of features, from a function of the user's own, through the command line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import popup
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.commands.rebuild import recorded_image
from popup.lab.data.dataset import DataRequest, Dataset
from popup.lab.data.datasets import DATASETS, load_dataset
from popup.lab.inputs import Tokens, Window, blank, called, logits_shape, noise
from popup.ticket.file import TicketError

MODULE = """
import numpy as np
import torch
from torch import nn
from popup.lab.data.dataset import Dataset

NUMBERS = np.random.default_rng(0).integers(0, 40, (300, 12)).astype(np.int32)
LABELS = (NUMBERS < 20).sum(1) > 6
ROWS = np.random.default_rng(0).normal(size=(300, 12))
SIDES = ROWS[:, :6].sum(1) > ROWS[:, 6:].sum(1)

def parts(inputs, labels=LABELS):
    return (inputs[:200], labels[:200]), (inputs[200:], labels[200:])

def ready(vocabulary=50, labels=LABELS):
    return Dataset("Mine", 2, *parts(torch.as_tensor(NUMBERS).long(), torch.as_tensor(labels)), vocabulary=vocabulary)

tokens = lambda: parts(NUMBERS)
table = lambda: parts(ROWS, SIDES)
pixels = lambda: parts(np.clip(ROWS * 30 + 128, 0, 255).astype(np.uint8), SIDES)
few = lambda: ready(30)
below = lambda: parts(NUMBERS - 1)
cubes = lambda: parts(NUMBERS.reshape(300, 3, 4))
bools = lambda: parts(NUMBERS > 3)
each = lambda: parts(NUMBERS, NUMBERS)
each_ready = lambda: ready(labels=NUMBERS)

class Reader(nn.Module):
    def __init__(self, vocabulary, classes):
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(vocabulary, 32), nn.Linear(32, 64), nn.Linear(64, classes)

    def forward(self, tokens):
        return self.out(torch.relu(self.hidden(4 * self.embed(tokens).mean(1))))

def network(shape, classes):
    return Reader(shape.vocabulary, classes)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_tokens.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "own_tokens"


def found(name):
    return load_dataset(name, DataRequest(directory=None))


def test_sequences_are_searched_verified_and_evaluated(module, tmp_path, capsys):
    own = ["--dataset", f"{module}:tokens", "--model", f"{module}:network"]
    assert main([*own, "--skip", "embed", "--er-p", "0.8", "--epochs", "6", "--batch-size", "16", "--validation", "0.2",
                 "--threads", "1", "--out", "runs"], MODELS) == 0
    (path,) = tmp_path.glob("runs/*/ticket.safetensors")
    ticket = popup.load(path)
    shape, classes = recorded_image(ticket)
    assert (shape, called(shape), shape.vocabulary, classes) == ((12,), "sequences of tokens", 40, 2)
    assert ticket.about["test_accuracy"] > 60 and json.loads((path.parent / "result.json").read_text())["proof"]["holds"]
    capsys.readouterr()
    for command in (["verify", str(path), *own[2:]], ["eval", str(path), *own], ["eval", str(path), *own, "--test"]):
        assert main(command, MODELS) == 0
    told = capsys.readouterr().out
    assert "repeated exactly" in told and "BROKEN" not in told and "at the point of use: in own_tokens:network" in told


def test_features_of_ones_own_are_searched(module, tmp_path, capsys):
    for name in ("table", "pixels"):
        arguments = ["--dataset", f"{module}:{name}", "--model", "mlp", "--widths", "16", "8", "--er-p", "0.8", "--epochs", "2"]
        assert main([*arguments, "--batch-size", "8", "--threads", "1", "--controls", "none", "--out", name], MODELS) == 0
        (path,) = tmp_path.glob(f"{name}/*/ticket.safetensors")
        assert recorded_image(popup.load(path)) == ((12,), 2) and "vocabulary" not in popup.load(path).about
        assert main(["eval", str(path), "--dataset", f"{module}:{name}"], MODELS) == 0
        assert "repeated exactly" in capsys.readouterr().out


def test_what_numbers_of_ones_own_are(module):
    tokens, table, pixels, ready = (found(f"{module}:{name}") for name in ("tokens", "table", "pixels", "ready"))
    assert [data.train[0].dtype for data in (tokens, table, pixels)] == [torch.int64, torch.float32, torch.uint8]
    assert [type(data.image) for data in (tokens, table, pixels, ready)] == [Tokens, tuple, tuple, Tokens]
    assert (tokens.vocabulary, table.vocabulary, ready.vocabulary, ready.image.vocabulary) == (40, 0, 50, 50)
    assert tokens.described()[0].startswith("own_tokens:tokens: 200 sequences of 12 tokens, 2 classes, smallest class")


@pytest.mark.parametrize(("name", "words"), [
    ("few", r"go from 0 to 39: number tokens from 0 to below 30"), ("below", r"go from -1 to 38: number tokens from 0"),
    ("cubes", r"inputs have shape \[200, 3, 4\]"), ("bools", "dtype torch.bool, not uint8, float or tokens"),
    ("each", r"labels have shape \[200, 12\]; a label a token have text:FILE, and popup\.fit"),
    ("each_ready", "a label a token")])
def test_what_can_be_no_tokens_is_one_line(module, name, words):
    with pytest.raises(popup.UsageError, match=words) as error:
        found(f"{module}:{name}")
    assert "\n" not in str(error.value)


def test_windows_of_the_registry_have_tokens_that_are_classes(monkeypatch):
    tokens = torch.tensor([[0, 3], [1, 2]])
    monkeypatch.setitem(DATASETS, "odd", lambda request: Dataset("odd", 3, (tokens, tokens % 3), (tokens, tokens % 3)))
    with pytest.raises(popup.UsageError, match="go from 0 to 3: number tokens from 0 to below 3"):
        found("odd")


@pytest.mark.parametrize("model", ["mlp", "gpt"])
def test_models_that_do_not_read_sequences_say_so(module, model, capsys):
    assert main(["--dataset", f"{module}:tokens", "--model", model, "--out", "runs"], MODELS) == 2
    line = capsys.readouterr().err
    assert f"model '{model}' cannot be built for sequences of tokens [12]" in line and line.count("\n") == 1


@pytest.mark.parametrize("vocabulary", [0, -1, 1.5, "many", True, 1 << 40])
def test_a_vocabulary_that_can_be_none_is_refused(vocabulary):
    said = SimpleNamespace(about={"image": [12], "classes": 2, "vocabulary": vocabulary})
    with pytest.raises(TicketError, match=r"inputs of shape \[12\] of"):
        recorded_image(said)


def test_data_of_more_tokens_than_the_network_was_built_for_are_refused(module, tmp_path, capsys):
    own = ["--dataset", f"{module}:tokens", "--model", f"{module}:network"]
    main([*own, "--skip", "embed", "--epochs", "1", "--threads", "1", "--out", "runs"], MODELS)
    (path,) = tmp_path.glob("runs/*/ticket.safetensors")
    assert main(["eval", str(path), "--dataset", f"{module}:ready", *own[2:]], MODELS) == 2
    assert "Mine has 50 different tokens, and the ticket's network was built for 40" in capsys.readouterr().err


def test_an_input_is_what_its_shape_says():
    shape = Tokens((8,), 5)
    assert blank(shape).dtype is torch.int64 and logits_shape(shape, 3, 2) == (2, 3)
    assert noise(shape, 2, 50).unique().tolist() == [0, 1, 2, 3, 4] and noise(Window((8,)), 2, 50).max() == 1
    assert np.array_equal(noise(shape, 2, 5), noise(Tokens((8,), 5), 3, 5))

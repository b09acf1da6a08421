"""Tickets of one's own networks as files for other programs: tied weights, forwards that torch cannot trace, none of a run."""

import pytest
import safetensors.torch
import torch
from torch import nn

from models import MODELS
from popup import attach, extract, load
from popup.lab.commands.command import main

NETWORKS = """
import os
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.into, self.a, self.b, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, classes)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(self.into(x.flatten(1))).relu()).relu())

class Looking(Tied):
    def forward(self, x):
        y = super().forward(x)
        return -y if float(y.detach().sum()) < -1e9 else y

class Counted(Tied):
    def forward(self, x):
        return torch.cat([super(Counted, self).forward(row) for row in x.split(1)])

def tied(image, classes): return Tied(classes)
def looking(image, classes): return Looking(classes)
def counted(image, classes): return Counted(classes)
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A directory with a user's module of a name of its own, which other tests have not imported."""
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def searched(model, *more):
    assert main(["--model", model, "--epochs", "1", "--out", "runs", *more], MODELS) == 0


def ticket_in(tmp_path):
    (path,) = (tmp_path / "runs").glob("*/ticket.safetensors")
    return path


@pytest.mark.parametrize("form", [(), ("--csr",), ("--sparse",)])
def test_of_tied_weights_each_name_has_its_copy(form, networks, tmp_path, capsys):
    searched(f"{networks}:tied")
    path = ticket_in(tmp_path)
    named = ("--model", f"{networks}:tied") if form == ("--sparse",) else ()
    assert main(["export", str(path), "o.safetensors", *form, *named], MODELS) == 0
    found, state = safetensors.torch.load_file("o.safetensors"), load(path).state_dict()
    assert torch.equal(found["a.weight"], state["a.weight"]) and torch.equal(found["b.weight"], state["a.weight"])


@pytest.mark.parametrize("name", ["looking", "counted"])
def test_a_forward_that_torch_cannot_export_is_one_line(name, networks, tmp_path, capsys):
    searched(f"{networks}:{name}")
    capsys.readouterr()
    assert main(["export", str(ticket_in(tmp_path)), "o.pt2", "--model", f"{networks}:{name}"], MODELS) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot export this network for any number of inputs" in error
    assert not (tmp_path / "o.pt2").exists()


def test_a_ticket_that_was_made_in_python_is_exported(tmp_path, capsys):
    net = attach(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), er_p=0.5)
    extract(net).save(tmp_path / "t.safetensors")
    assert main(["export", str(tmp_path / "t.safetensors"), str(tmp_path / "o.safetensors")], MODELS) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "a plain state_dict" in captured.out and "its inputs are" not in captured.out


def test_sparse_layers_are_written_without_the_data(networks, tmp_path, capsys):
    """Only the network is needed, as for verify."""
    text = "\ndef data():\n    x = torch.randn(40, 1, 8, 8)\n    y = torch.arange(40) % 3\n    return (x, y), (x, y)\n"
    with open(tmp_path / f"{networks}.py", "a", encoding="utf-8") as file:
        file.write(text)
    searched(f"{networks}:tied", "--dataset", f"{networks}:data", "--batch-size", "8")
    assert main(["export", str(ticket_in(tmp_path)), "o.safetensors", "--sparse", "--model", f"{networks}:tied"], MODELS) == 0


@pytest.mark.parametrize(("wrong", "words"), [
    ('X = os.environ["NOT_SET_ANYWHERE"]', "KeyError: 'NOT_SET_ANYWHERE' ("), ("def (", "SyntaxError"),
    ("raise SystemExit(3)", "SystemExit"), ("X = never_defined", "NameError: name 'never_defined'"),
    ("raise ValueError('of mine')", "of mine")])
def test_a_module_that_cannot_be_imported_says_why(wrong, words, networks, tmp_path, capsys):
    """A KeyError of it was "unknown model", others a traceback."""
    (tmp_path / f"{networks}.py").write_text(f"import os\n{wrong}\n")
    for arguments in (["--model", f"{networks}:build"], ["--dataset", f"{networks}:data"]):
        assert main(arguments, MODELS) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and words in error and f"{networks}" in error, error

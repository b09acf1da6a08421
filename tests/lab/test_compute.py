"""How a run's layers compute: what "auto" comes to, what it is called, and that it ends with a proof."""

import json

import pytest
import torch

import popup
from models import MODELS
from popup.errors import UsageError
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs import checks
from popup.lab.runs.checks import settled
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.fit import fit
from popup.products import TorchKernels, best_kernels
from popup.search import compute as search_compute
from popup.search.network import computing, search_of

WIDE = ("--widths", "600", "600", "--epochs", "2", "--precision", "fp32")


def laboratory(tmp_path, device="cpu"):
    return Laboratory(MODELS, Machine(device), tmp_path)


def run(tmp_path, *options):
    assert main([*WIDE, *options, "--out", str(tmp_path)], MODELS) == 0
    (path,) = tmp_path.glob("*/result.json")
    return path.parent, json.loads(path.read_text())


@pytest.mark.parametrize(("options", "compute"), [
    ({}, "dense"), ({"widths": (600, 600), "er_p": 0.1}, "auto"), ({"widths": (600, 600), "er_p": 0.4}, "dense"),
    ({"widths": (600, 600), "er_p": 0.1, "compile": True}, "dense"), ({"er_p": 0.1, "compute": "sparse"}, "sparse"),
    ({"widths": (600, 600), "er_p": 0.1, "compute": "dense"}, "dense")])
def test_auto_is_dense_where_no_layer_pays_and_has_the_name_of_before(options, compute, tmp_path):
    if best_kernels().name == "torch":
        pytest.skip("needs numba: torch's kernels pay in larger layers")
    config = Config.from_flat({"precision": "fp32", **options})
    found = settled(laboratory(tmp_path), config)
    assert found == config.replace(compute=compute)
    assert (found.hash() == config.replace(compute="dense").hash()) == (compute == "dense")


def test_on_a_gpu_nothing_pays(tmp_path):
    config = Config.from_flat({"precision": "fp32", "widths": (600, 600), "er_p": 0.1})
    found = laboratory(tmp_path)
    found.device = torch.device("cuda")
    assert settled(found, config).training.compute == "dense"


@pytest.fixture
def no_numba(monkeypatch):
    monkeypatch.setattr(search_compute, "best_kernels", TorchKernels)


@pytest.mark.parametrize(("options", "layers"), [
    ({}, 0), ({"widths": (600, 600), "er_p": 0.1}, 2), ({"widths": (600, 600), "er_p": 0.4}, 0),
    ({"widths": (600, 2048), "er_p": 0.1}, 2),  # one is so large that torch's kernels pay too
    ({"model": "small_conv", "er_p": 0.2}, 0),  # would compute sparsely and gain nothing
    ({"model": "conv4", "er_p": 0.2}, 3), ({"model": "conv4", "er_p": 0.2, "compute": "dense"}, 0),
    ({"model": "conv4", "er_p": 0.2, "compile": True}, 0), ({"model": "conv4", "er_p": 0.2, "mask": "snip"}, 0)])
def test_what_numba_would_do_is_told_where_it_is_not_installed(options, layers, no_numba, tmp_path):
    """Of a grid at its smallest p; and nothing where it would change nothing."""
    configs = [Config.from_flat({"precision": "fp32", **options, "er_p": p}) for p in (1.0, options.get("er_p", 0.2))]
    note = checks.without_numba(laboratory(tmp_path), configs)
    right = f"faster with numba: at p = {configs[1].source.er_p:g} {layers} layer{'s' * (layers > 1)} would compute"
    assert note.startswith(right) and "pip install numba" in note if layers else note == ""


def test_nothing_is_told_of_numba_where_it_is(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    config = Config.from_flat({"precision": "fp32", "model": "conv4", "er_p": 0.2})
    assert checks.without_numba(laboratory(tmp_path), [config]) == ""


@pytest.mark.usefixtures("no_numba")
def test_a_run_tells_of_numba_once(tmp_path, capsys):
    assert main([*WIDE, "--er-p", "0.1", "0.2", "--controls", "none", "--out", str(tmp_path)], MODELS) == 0
    assert capsys.readouterr().out.count("faster with numba: at p = 0.1 2 layers would") == 1


@pytest.mark.parametrize("compute", ["auto", "sparse", "dense"])
def test_a_run_says_how_it_computed_and_its_proof_holds(compute, tmp_path, capsys):
    directory, result = run(tmp_path, "--er-p", "0.1", "--compute", compute)
    sparse = compute == "sparse" or (compute == "auto" and best_kernels().name == "numba")
    number = {"auto": 2, "sparse": 3}.get(compute)  # 64 to 600 is too narrow; 600 to 10 follows a sparse one
    assert result["realised_compute"] == (f"sparse ({best_kernels().name}), {number} of 3 layers" if sparse else "dense")
    assert result["proof"]["holds"] and not result["proof"]["differing"]
    assert main(["eval", str(directory / "ticket.safetensors")], MODELS) == 0
    assert "repeated exactly" in capsys.readouterr().out


def test_accuracies_are_those_of_dense_runs(tmp_path):
    """Not number for number: float noise finds another ticket."""
    found = {}
    for compute in ("dense", "sparse"):
        data = popup_digits(tmp_path)
        config = Config.from_flat({"epochs": 8, "widths": (128,), "er_p": 0.3, "compute": compute})
        outcome = fit(MODELS["mlp"](data.image, 10, (128,)), data.train, data.test, config)
        assert outcome.proof.holds and (outcome.compute == "dense") == (compute == "dense")
        found[compute] = outcome.test_accuracy
    assert abs(found["dense"] - found["sparse"]) < 3 and min(found.values()) > 90


def popup_digits(tmp_path):
    return laboratory(tmp_path).data(Config())


def test_attach_takes_compute_and_refuses_other_words():
    net = popup.attach(MODELS["mlp"]((1, 28, 28), 10, (600,)), er_p=0.1, compute="sparse")
    assert computing(net).startswith("sparse") and all(layer.sparse for layer in search_of(net).layers)
    assert computing(popup.attach(MODELS["mlp"]((1, 28, 28), 10, (600,)), er_p=0.1, compute="dense")) == "dense"
    with pytest.raises(UsageError, match=r"compute 'fast'.*auto, dense, sparse"):
        popup.attach(MODELS["mlp"]((1, 8, 8), 10), er_p=0.1, compute="fast")


@pytest.mark.parametrize(("options", "words"), [(["fast"], "fast"), (["sparse", "--compile"], "leave one of them out")])
def test_a_wrong_value_ends_with_2(options, words, capsys):
    assert main(["--compute", *options], MODELS) == 2
    assert words in capsys.readouterr().err

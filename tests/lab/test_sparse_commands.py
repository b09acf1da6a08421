"""eval, export and bench with sparse inference: what they say, what they write, and how they end."""

import json

import pytest
import safetensors.torch
import torch

from models import MODELS
from popup import load
from popup.lab.commands import eval_command
from popup.lab.commands.command import main
from popup.lab.commands.rebuild import rebuild, recorded_config
from popup.ticket import load_sparse, sparse_layers, sparse_linear
from popup.ticket.sparse_product import product

OK, BROKEN = "  ok     sparse: ", "  BROKEN sparse: "


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    """The file of an MLP's ticket, and of one of a network with norms and convolutions."""
    place, found = tmp_path_factory.mktemp("sparse"), {}
    for name, arguments in (("mlp", ["--er-p", "0.1", "--widths", "400", "400"]),
                            ("resnet18", ["--model", "resnet18", "--widths", "4", "4", "4", "4"])):
        assert main(["--epochs", "1", "--out", str(place / name), *arguments], MODELS) == 0
        (found[name],) = place.glob(f"{name}/*/ticket.safetensors")
    return found


def call(capsys, *arguments):
    """Exit code, lines and errors of a command."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments], MODELS)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def build(path, sparse=False):
    ticket = load(path)
    return rebuild(ticket, MODELS, recorded_config(ticket), sparse)


def test_eval_says_what_the_sparse_network_is_and_gives(tickets, capsys):
    code, lines, _ = call(capsys, "eval", tickets["mlp"], "--sparse")
    kept = sum(layer.kept for layer in load(tickets["mlp"]).layers)
    assert code == 0 and lines[-1].endswith("repeated exactly") and len(lines) == 5
    assert lines[2] == f"{OK}3 layers hold the {kept:,} edges that the ticket keeps of them, with their weights, and nothing else"
    assert lines[3] == f"{OK}on all 359 images the outputs are the dense network's within float noise, and no prediction differs"
    assert call(capsys, "eval", tickets["mlp"])[1] == [*lines[:2], lines[-1]]


def test_eval_says_what_is_left_dense(tickets, capsys):
    code, lines, _ = call(capsys, "eval", tickets["resnet18"], "--sparse")
    assert code == 0 and lines[2].startswith(f"{OK}1 layer holds the ")
    (line,) = [line for line in lines if line.startswith("  --     left dense: ")]
    assert "and 17 more (of Conv2d, not of nn.Linear itself)" in line


def test_the_record_is_compared_with_the_dense_network(tickets, capsys, monkeypatch):
    """In bf16, say, which sparse layers do not compute in, predictions near a tie may be others; that breaks no record."""
    measure = eval_command.evaluate

    def another_for_sparse(net, *rest, **named):
        found = measure(net, *rest, **named)
        return {**found, "test_accuracy": found["test_accuracy"] - bool(sparse_layers(net))}

    monkeypatch.setattr(eval_command, "evaluate", another_for_sparse)
    code, lines, _ = call(capsys, "eval", tickets["mlp"], "--sparse")
    recorded = load(tickets["mlp"]).about["test_accuracy"]
    assert code == 0 and f"accuracy {recorded - 1:.2f}% of 359" in lines[0]
    assert lines[-1] == f"recorded: {recorded:.2f}%, repeated exactly by the dense network, whose accuracy is {recorded:.2f}%"


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda *arrays: product(*arrays) * 1.01, "outputs on 359 differ"),
    (lambda starts, columns, values, x: product(starts, columns.roll(1), values, x), "outputs on 359 differ")])
def test_a_product_that_computes_otherwise_fails(spoil, words, tickets, capsys, monkeypatch):
    monkeypatch.setattr(sparse_linear, "product", spoil)
    code, lines, _ = call(capsys, "eval", tickets["mlp"], "--sparse")
    assert code == 1 and lines[2].startswith(OK) and lines[3].startswith(BROKEN) and lines[3].endswith(words)


def test_a_layer_that_holds_something_else_fails(tickets, capsys, monkeypatch):
    at = sparse_linear.SparseLinear.at.__func__

    def reversed_values(cls, places, values, shape):
        return at(cls, places, values.flip(0), shape)

    monkeypatch.setattr(sparse_linear.SparseLinear, "at", classmethod(reversed_values))
    code, lines, _ = call(capsys, "eval", tickets["mlp"], "--sparse")
    assert code == 1 and lines[2].startswith(BROKEN) and "1.weight holds other weights than the ticket's" in lines[2]


@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_export_writes_a_state_that_load_sparse_reads(name, tickets, capsys, tmp_path):
    out = tmp_path / "sparse.safetensors"
    code, lines, _ = call(capsys, "export", tickets[name], out, "--sparse")
    count = 3 if name == "mlp" else 1
    assert code == 0 and f"a state_dict with {count} sparse layer{'s' if count > 1 else ''}" in lines[0]
    state = safetensors.torch.load_file(out)
    plain, wanted = MODELS[load(tickets[name]).about["task"]["model"]], build(tickets[name], sparse=True)
    widths = (400, 400) if name == "mlp" else (4, 4, 4, 4)
    net = load_sparse(plain((1, 8, 8), 10, widths), state).eval()
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(net(x), wanted(x)) and len(sparse_layers(net)) == count


def test_its_size_is_in_proportion_to_the_kept_edges(tickets, capsys, tmp_path):
    for form in ("safetensors", "pt2"):
        assert call(capsys, "export", tickets["mlp"], tmp_path / f"sparse.{form}", "--sparse")[0] == 0
    layers = load(tickets["mlp"]).layers
    kept, rows = sum(layer.kept for layer in layers), sum(layer.spec.shape[0] for layer in layers)
    arrays = 8 * kept + 8 * rows  # values and columns; where rows begin, and biases
    assert arrays <= (tmp_path / "sparse.safetensors").stat().st_size < arrays + 2000
    assert arrays <= (tmp_path / "sparse.pt2").stat().st_size < arrays + 80_000 < sum(layer.spec.entries for layer in layers)


def test_a_sparse_program_needs_nothing_of_popup(tickets, capsys, tmp_path):
    out = tmp_path / "sparse.pt2"
    code, lines, _ = call(capsys, "export", tickets["mlp"], out, "--sparse")
    assert code == 0 and "the same predictions on 359 test images" in lines[0]
    program = torch.export.load(out)
    assert all("popup" not in str(node.target) for node in program.graph.nodes)
    for count in (1, 2, 300):
        x = torch.randn(count, 1, 8, 8)
        assert torch.allclose(program.module()(x), build(tickets["mlp"])(x), atol=1e-4)


@pytest.mark.parametrize(("arguments", "words"), [
    ("out.onnx --sparse", ["sparse is for .safetensors and .pt2 files", "leave --sparse out"]),
    ("out.safetensors --sparse --csr", ["csr and sparse", "give --csr"])])
def test_what_cannot_be_exported_is_one_line(arguments, words, tickets, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines, error = call(capsys, "export", tickets["mlp"], *arguments.split())
    assert code == 2 and error.count("\n") == 1 and all(word in error for word in words) and not lines
    assert not list(tmp_path.iterdir())


def test_bench_times_sparse_inference_beside_the_dense_network(tmp_path, capsys):
    arguments = ["--rounds", "1", "--largest", "0", "--no-subset-sums", "--no-small-networks", "--no-wide-networks", "--no-calls",
                 "--batch", "4", "--device", "cpu", "--model", "chain:flatten-linear", "--side", "4", "--precision", "fp32",
                 "--out", tmp_path]
    code, lines, _ = call(capsys, "bench", *arguments)
    rows = json.loads((tmp_path / "bench.json").read_text())["sparse_inference"]
    assert code == 0 and [row["batch"] for row in rows] == [1, 32, 128, 256]
    names = ["dense forward", *(f"sparse, density {density}" for density in ("0.1", "0.05", "0.01"))]
    for row in rows:
        assert [figure["name"] for figure in row["figures"]] == names and row["figures"][0]["ratio"] == 1
        sizes = [figure["state"] for figure in row["figures"]]
        assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 40
    assert sum(line.split()[0] in ("1", "32", "128", "256") for line in lines if line.split()) >= 16

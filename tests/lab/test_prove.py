"""prove: tickets that eval and verify take, the comparison, and one line for a target that cannot be."""

import hashlib
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch import nn

from models import MODELS
from models.registry import Models
from popup import load
from popup.lab.commands.command import main
from popup.lab.runs import existence, rival
from popup.lab.runs.gaps import measure_gaps
from popup.lab.runs.targets import _in_order
from popup.lab.training.fit import fit
from popup.theory.construction import construct
from popup.theory.reading import read_target
from popup.theory.wish import Wish
from popup.ticket.sparse_linear import SparseLinear

HOLDS = re.compile("(proved|tested) within")
SMALL = ("--widths", "4", "--epochs", "6", "--epsilon", "2", "--er-p", "0.9", "--threads", "1")


def call(capsys, *arguments, models=MODELS):
    """Exit code, stdout and stderr of a command."""
    code = main([str(argument) for argument in arguments], models)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One directory for the module: two sources, of which the first is also searched."""
    directory, decays = tmp_path_factory.mktemp("existence"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rival, "fit", lambda net, train, test, config, *more: (
            decays.append(config.training.weight_decay), fit(net, train, test, config, *more))[1])
        assert main(["prove", *SMALL, "--compare", "1", "--seeds", "2", "--out", str(directory)], MODELS) == 0
    assert decays == [0.0], "the target's is none of the scores'"
    return directory


def test_the_tickets_are_ordinary_ones(out, capsys):
    for seed in (0, 1):
        path = out / f"ticket-p0.9-seed{seed}.safetensors"
        assert call(capsys, "verify", path)[0] == 0
        code, text, _ = call(capsys, "eval", path, "--threads", "1")
        assert code == 0 and "repeated exactly" in text and "mlp_constant on digits" in text
        assert load(path).recipe.seed == seed


def test_the_record_says_what_was_measured(out):
    record = json.loads((out / "existence.json").read_text())
    (source,) = record["sources"]
    assert source["failures"] == 0 and [ticket["seed"] for ticket in source["tickets"]] == [0, 1]
    for ticket in source["tickets"]:
        assert set(ticket["gaps"]) == {"test", "training", "random", "corners", "worst"}
        assert all(0 < gap["mean"] <= gap["largest"] <= 2 for gap in ticket["gaps"].values())
        assert ticket["gaps"]["worst"]["largest"] < ticket["guaranteed"]
        assert ticket["gaps"]["worst"]["largest"] >= max(gap["largest"] for gap in ticket["gaps"].values())
        assert abs(ticket["test_accuracy"] - record["target"]["test_accuracy"]) < 10
    kept = [sum(layer["kept"] for layer in ticket["layers"]) for ticket in source["tickets"]]
    assert abs(source["edge_popup"]["kept"] - kept[0]) <= 3 and source["edge_popup"]["test_accuracy"] > 20


def test_gaps_of_a_large_source_are_measured_on_its_kept_edges(out, tmp_path, monkeypatch):
    """Here a small one counts as large; the gaps, to which gradients lead too, are the dense network's within float noise."""
    passes, forward = [], SparseLinear.forward
    monkeypatch.setattr(existence, "LARGE", 0)
    monkeypatch.setattr(existence, "SPARSE", 1.0)
    monkeypatch.setattr(SparseLinear, "forward", lambda layer, x: (passes.append(x.requires_grad), forward(layer, x))[1])
    assert main(["prove", *SMALL, "--compare", "0", "--out", str(tmp_path)], MODELS) == 0
    ours, theirs = (json.loads((place / "existence.json").read_text())["sources"][0]["tickets"][0] for place in (tmp_path, out))
    assert set(passes) == {False, True} and ours["test_accuracy"] == theirs["test_accuracy"]
    for name, gap in theirs["gaps"].items():
        for measure in ("largest", "mean"):
            assert ours["gaps"][name][measure] == pytest.approx(gap[measure], rel=1e-3, abs=1e-5)


def test_a_source_that_is_too_large_to_be_dense_is_never_made_so(out, tmp_path, monkeypatch):
    """Every layer is sparse then; its accuracy is the dense network's."""
    monkeypatch.setattr(existence, "HUGE", 0)
    monkeypatch.setattr(existence, "build", None)
    assert main(["prove", *SMALL, "--compare", "0", "--out", str(tmp_path)], MODELS) == 0
    ours, theirs = (json.loads((place / "existence.json").read_text())["sources"][0]["tickets"][0] for place in (tmp_path, out))
    assert ours["test_accuracy"] == theirs["test_accuracy"]
    assert ours["gaps"]["worst"]["largest"] == pytest.approx(theirs["gaps"]["worst"]["largest"], rel=0.05)


def test_a_target_from_a_file(out, tmp_path, capsys):
    torch.manual_seed(0)
    net = MODELS["mlp"]((1, 8, 8), 10, (3,))
    safetensors.torch.save_file(net.state_dict(), tmp_path / "t.safetensors")
    options = ("--target", tmp_path / "t.safetensors", "--compare", 0, "--out", tmp_path / "out",
               "--weights", "kaiming_normal")
    code, text, _ = call(capsys, "prove", *SMALL, *options[:2], "--widths", "3", *options[2:])
    assert code == 0 and "64-3-10" in text and HOLDS.search(text) and "edge-popup" not in text
    assert load(tmp_path / "out" / "ticket-p0.9-seed0.safetensors").about["built"]["multiple"] < 0.5
    code, _, error = call(capsys, "prove", *SMALL, *options)
    assert code == 2 and "no state_dict of mlp with widths [4]" in error and error.count("\n") == 1


def conv(image, classes):
    """A user's own network: functional ReLU, biases, no widths."""
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(image[0], 3, 3, padding=1), nn.Linear(3 * 4, classes)

        def forward(self, x):
            return self.head(nn.functional.relu(self.conv(x)).unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)).flatten(1))

    return Own()


def test_a_convolutional_target_becomes_an_ordinary_ticket(tmp_path, capsys):
    options = ("--model", "chain:conv3p1-relu-max4-flatten-linear", "--widths", 3, "--epochs", 3, "--epsilon", 0.5)
    code, text, _ = call(capsys, "prove", *options, "--er-p", 0.9, "--threads", 1, "--compare", 1, "--out", tmp_path)
    assert code == 0 and "1-3-10 on digits" in text and HOLDS.search(text) and "edge-popup, 1 epoch " in text
    path = tmp_path / "ticket-p0.9-seed0.safetensors"
    assert call(capsys, "verify", path)[0] == 0
    code, text, _ = call(capsys, "eval", path, "--threads", 1)
    assert code == 0 and "repeated exactly" in text and "chain:one-conv1-relu-conv3p1-relu-max4-flatten-linear" in text
    code, text, _ = call(capsys, "show", path)
    assert code == 0 and "3.weight" in text
    (source,) = json.loads((tmp_path / "existence.json").read_text())["sources"]
    assert all(0 < gap["largest"] <= 0.5 for gap in source["tickets"][0]["gaps"].values())


class Turned(nn.Module):
    """Names its layers in another order than it calls them."""

    def __init__(self, image, classes):
        super().__init__()
        self.head, self.body = nn.Linear(8, classes), nn.Linear(64, 8)

    def forward(self, x):
        return self.head(torch.relu(self.body(x.flatten(1))))


def test_the_layer_that_sees_images_first_normalises_where_they_are_taken_as_they_are(tmp_path, capsys):
    """The first by name had done so: the target that was built was not the one whose accuracy was told."""
    options = ("--normalise", "none", "--er-p", 0.9, "--epochs", 3, "--epsilon", 1, "--compare", 0, "--threads", 1, "--out",
               tmp_path)
    code, text, error = call(capsys, "prove", "--model", "turned", *options,
                             models={**MODELS, "turned": lambda image, classes: Turned(image, classes)})
    assert code == 0 and HOLDS.search(text), error
    record = json.loads((tmp_path / "existence.json").read_text())
    assert abs(record["target"]["test_accuracy"] - record["sources"][0]["tickets"][0]["test_accuracy"]) < 6
    code, _, error = call(capsys, "prove", "--model", "chain:relu-flatten-linear-relu-linear", "--widths", 4, *options[:-1],
                          tmp_path / "other")
    assert code == 2 and "is not all that it makes of them" in error and error.count("\n") == 1


def test_a_residual_block_becomes_an_ordinary_ticket_of_a_source_without_shortcuts(tmp_path, capsys):
    words = "flatten-linear-relu-skip-linear-relu-linear-add-relu-linear"
    options = ("--model", f"chain:{words}", "--widths", 2, 1, 2, "--epochs", 2, "--epsilon", 9, "--depth", "2L")
    code, text, _ = call(capsys, "prove", *options, "--er-p", 0.5, "--threads", 1, "--compare", 0, "--out", tmp_path)
    assert code == 0 and "64-2-3-2-10 on digits" in text and "proved within epsilon 9" in text
    path = tmp_path / "ticket-p0.5-seed0.safetensors"
    assert call(capsys, "verify", path)[0] == 0
    code, text, _ = call(capsys, "eval", path, "--threads", 1)
    assert code == 0 and "repeated exactly" in text and "skip" not in text
    exact = ("--bits", 4, "--normalise", "none", "--epochs", 1)
    code, _, error = call(capsys, "prove", *options, *exact, "--out", tmp_path / "other")
    assert code == 2 and "the target has shortcuts" in error and error.count("\n") == 1


def test_an_exact_ticket_is_refused_where_its_copies_are_too_few(tmp_path, capsys):
    code, _, error = call(capsys, "prove", "--widths", 3, "--bits", 3, "--normalise", "none", "--epochs", 1, "--copies", 2,
                          "--threads", 1, "--out", tmp_path)
    assert code == 2 and error.startswith("popup: copies is 2 and at p = 0.9 an exact ticket") and error.count("\n") == 1


class Swapped(nn.Module):
    """Two layers of one size that are declared in the other order than they are called in."""

    def __init__(self, image, classes):
        super().__init__()
        self.last, self.second, self.first = nn.Linear(4, classes), nn.Linear(4, 4), nn.Linear(4, 4)
        self.into = nn.Linear(image[1] * image[2], 4)

    def forward(self, x):
        return self.last(self.second(self.first(self.into(x.flatten(1)).relu()).relu()).relu())


def test_the_weights_of_a_quantised_target_go_to_the_layers_that_they_are_of():
    torch.manual_seed(0)
    net = Swapped((1, 2, 3), 5)
    layers = [net.into, net.first, net.second, net.last]
    target = read_target(net, (1, 2, 3), -1.0, 1.0)
    assert _in_order([net.last, net.second, net.first, net.into], target) == layers


@pytest.mark.parametrize(("gap", "certain", "verdict"), [(0.5, 0.9, "proved"), (1.001, 0.9995, "missed"), (0.5, 2.0, "tested"),
                                                          (1.5, 2.0, "missed"), (3.0, 2.0, "broken")])
def test_what_rounding_carries_above_epsilon_is_missed(gap, certain, verdict):
    built = existence.Built(None, SimpleNamespace(guaranteed=certain), None, 0.0, {"test": SimpleNamespace(largest=gap)}, 0.002)
    assert built.verdict(Wish(epsilon=1.0)) == verdict


@pytest.mark.parametrize("word", ["tanh", "sigmoid", "leaky0.1"])
def test_a_target_of_another_activation_becomes_an_ordinary_ticket_of_its_own(word, tmp_path, capsys):
    options = ("--model", f"chain:flatten-linear-{word}-linear", "--widths", 3, "--epochs", 2, "--epsilon", 1, "--er-p", 0.5)
    code, text, _ = call(capsys, "prove", *options, "--threads", 1, "--compare", 0, "--out", tmp_path)
    assert code == 0 and HOLDS.search(text) and "64-3-10 on digits" in text
    assert ("copied so small that tanh is nearly linear" in text) == (word != "leaky0.1")
    path, name = tmp_path / "ticket-p0.5-seed0.safetensors", "leaky0.1" if word == "leaky0.1" else "tanh"
    assert call(capsys, "verify", path)[0] == 0
    code, text, _ = call(capsys, "eval", path, "--threads", 1)
    assert code == 0 and "repeated exactly" in text and f"chain:flatten-one-linear-{name}-linear-{name}-linear on" in text


def test_ones_own_convolutional_network_from_a_file(tmp_path, capsys):
    """Pooling that is no module is refused; with nn.AvgPool2d the same weights are built. Its builder takes no widths."""
    torch.manual_seed(0)
    net = conv((1, 8, 8), 10)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "t.safetensors")

    def pooled(image, classes):
        own = conv(image, classes)
        own.pool = nn.AvgPool2d(4)
        own.forward = lambda x: own.head(own.pool(nn.functional.relu(own.conv(x))).flatten(1))
        return own

    models = Models({**MODELS, "conv": conv, "pooled": pooled})
    options = ("--target", tmp_path / "t.safetensors", "--compare", 0, "--epsilon", 0.5, "--er-p", 0.9, "--threads", 1)
    code, _, error = call(capsys, "prove", "--model", "conv", *options, "--out", tmp_path / "out", models=models)
    assert code == 2 and "pooling is seen where it is a module" in error and error.count("\n") == 1
    code, text, _ = call(capsys, "prove", "--model", "pooled", *options, "--out", tmp_path / "out", models=models)
    assert code == 0 and "pooled 1-3-10" in text and HOLDS.search(text)


def test_a_target_that_changes_its_input_in_place(tmp_path, capsys):
    """Its data stays what it was, and its gap can be climbed."""
    def relu_first(image, classes, widths=(4,)):
        return nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, classes))

    options = (*SMALL, "--model", "relu_first", "--compare", 0, "--out", tmp_path)
    code, text, _ = call(capsys, "prove", *options, models=Models({**MODELS, "relu_first": relu_first}))
    assert code == 0 and HOLDS.search(text) and "inputs in [-0.8" in text


def test_a_ticket_that_misses_epsilon_is_not_written(tmp_path, capsys, monkeypatch):
    """A law that asks for too few candidates: the measurement finds it out."""
    monkeypatch.setattr("popup.theory.plan.copies_needed", lambda *arguments: 3)
    monkeypatch.setattr("popup.theory.plan.copies_for", lambda *arguments: 3)
    code, text, _ = call(capsys, "prove", *SMALL, "--compare", 0, "--epsilon", "0.001", "--delta", 0.4, "--out", tmp_path)
    assert code == 1 and "MISSED epsilon 0.001" in text and "misses of epsilon 0.001: 1 of 1 sources (1 missed)" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["existence.json", "existence.png", "target.safetensors"]


def test_a_ticket_that_is_only_good_on_data_misses_epsilon(tmp_path, capsys, monkeypatch):
    """Its output is off at a corner of the domain, where neither data nor random inputs are."""
    def gaps(*arguments):
        net = arguments[1]
        last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_hook(lambda module, inputs, logits: logits + 100)
        net.register_forward_hook(lambda module, inputs, logits: logits - 100 * (inputs[0].mean((1, 2, 3)) < 1.8)[:, None])
        return measure(*arguments)

    measure = existence._off
    monkeypatch.setattr(existence, "_off", gaps)
    code, text, _ = call(capsys, "prove", *SMALL, "--compare", 0, "--out", tmp_path)
    record = json.loads((tmp_path / "existence.json").read_text())
    found = record["sources"][0]["tickets"][0]["gaps"]
    assert code == 1 and max(found[name]["largest"] for name in ("test", "training", "random")) < 2 < found["corners"]["largest"]
    assert "above what is certain" in text and not list(tmp_path.glob("ticket-*"))


def test_a_tolerance_promises_what_is_certain_and_that_is_checked(tmp_path, capsys, monkeypatch):
    options = (*SMALL, "--compare", 0, "--tolerance", "0.05", "--out", tmp_path)
    code, text, _ = call(capsys, "prove", *options)
    assert code == 0 and "tested within what is certain" in text and "epsilon" not in text
    (ticket,) = json.loads((tmp_path / "existence.json").read_text())["sources"][0]["tickets"]
    assert ticket["guaranteed"] > ticket["gaps"]["worst"]["largest"]
    monkeypatch.setattr(existence, "construct", lambda *arguments: replace(construct(*arguments), guaranteed=1e-3))
    code, text, _ = call(capsys, "prove", *options)
    assert code == 1 and "BROKEN: a gap is above what is certain" in text and not list(tmp_path.glob("ticket-*"))


def test_the_domain_is_the_one_that_was_asked_for(out, tmp_path, capsys, monkeypatch):
    """Inputs of all of it are tried, and the plan is for it."""
    seen = []
    monkeypatch.setattr(existence, "measure_gaps", lambda *arguments: seen.append(arguments) or measure_gaps(*arguments))
    options = ("--target", out / "target.safetensors", "--compare", 0)
    code, text, _ = call(capsys, "prove", *SMALL, *options, "--domain", "-2", "6", "--out", tmp_path)
    assert code == 0 and "inputs in [-2, 6] (both branches" in text and seen[0][2:4] == (-2.0, 6.0)
    wide, own = (json.loads((path / "existence.json").read_text()) for path in (tmp_path, out))
    assert wide["target"]["domain"] == [-2, 6] and own["target"]["domain"][0] > -1
    for finer, tolerance in zip(*(record["sources"][0]["plan"]["tolerances"] for record in (wide, own)), strict=True):
        assert finer < 0.6 * tolerance


def test_the_target_that_was_proved_is_kept(out, tmp_path, capsys):
    """With it a ticket's promise can be checked again, by any program."""
    options = ("--target", out / "target.safetensors", "--compare", 0, "--out", tmp_path)
    code, text, _ = call(capsys, "prove", *SMALL, *options)
    assert code == 0 and HOLDS.search(text)
    one, other = (load(path / "ticket-p0.9-seed0.safetensors") for path in (tmp_path, out))
    assert all((left.selected == right.selected).all() for left, right in zip(one.layers, other.layers, strict=True))


def test_tickets_of_another_target_are_not_belied(tmp_path, capsys):
    """A ticket names its target, and no other is written beside it; the same may be proved again."""
    options = (*SMALL, "--compare", 0, "--out", tmp_path)
    assert call(capsys, "prove", *options)[0] == 0
    target = (tmp_path / "target.safetensors").read_bytes()
    ticket = tmp_path / "ticket-p0.9-seed0.safetensors"
    assert load(ticket).about["built"]["target"] == hashlib.sha256(target).hexdigest()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, error = call(capsys, "prove", *options, "--epochs", 5, "--er-p", 0.8)
    assert code == 2 and error.count("\n") == 1
    assert f"{ticket} is a ticket of another target: give another --out, or move it away" in error
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert call(capsys, "prove", *options, "--er-p", 0.8)[0] == 0
    ticket.write_bytes(b"")
    code, _, error = call(capsys, "prove", *options)
    assert code == 2 and error.count("\n") == 1


@pytest.mark.parametrize("epsilon", ["1000", "1e300"])
def test_an_epsilon_of_any_size_is_met(epsilon, tmp_path, capsys):
    code, text, _ = call(capsys, "prove", *SMALL, "--epsilon", epsilon, "--compare", 0, "--out", tmp_path)
    assert code == 0 and HOLDS.search(text)
    assert call(capsys, "verify", tmp_path / "ticket-p0.9-seed0.safetensors")[0] == 0


def gelu(image, classes, widths=(4,)):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.GELU(), nn.Linear(4, classes))


REFUSED = {
    "width factor": (("--copies", "9"), r"width factor 9 is too small at p = 0.9: "),
    "too large": (("--most-weights", "1000"), "more than --most-weights 1,000; raise it (some 11 bytes a weight), p or epsilon"),
    "epsilon": (("--epsilon", "1e-7"), "a parameter would need"),
    "least epsilon": (("--epsilon", "1e-310"), "epsilon is 1e-310: a parameter would need"),
    "least tolerance": (("--tolerance", "1e-310"), "tolerance is 1e-310: a parameter would need"),
    "least number": (("--epsilon", "5e-324"), "epsilon is 4.94066e-324: a parameter would need"),
    "edges of layer 0": (("--er-p", "1e-7"), "er_p is 1e-07: a neuron would need some"),
    "file": (("--target", "nowhere"), "there is no file 'nowhere'"),
    "directory": (("--target", "."), "there is no file '.'"),
    "few edges": (("--er-p", "1e-9"), "er_p is 1e-09: a neuron would need some"),
    "no edges": (("--er-p", "1e-300"), "raise it"),
    "depth": (("--widths", *"44444444", "--epsilon", "1000"), "no epsilon will do, but a target of smaller weights or fewer"),
    "not ReLU": (("--model", "gelu"), "it has GELU"),
    "no chain": (("--model", "chain:conv3-lrelu"), "'lrelu' is no layer: write "),
    "widths": (("--model", "chain:conv3-relu-conv3-relu-flatten-linear"), "has 3 layers: give 2 widths"),
    "no p": (("--er-p", "2"), "er_p is 2.0"),
    "weights": (("--weights", "normal"), "kaiming_normal"),
    "a text": (("--dataset", "text:"), "has tokens, and theory builds tickets of networks that name images"),
    "narrow domain": (("--domain", "-0.5", "3"), "domain is -0.5 3, and the images' values lie in [-0.81"),
    "one end": (("--domain", "3"), "domain is 3: give two numbers, the lower first"),
    "ends": (("--domain", "3", "-1"), "domain is 3 -1: give two numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_line_and_no_ticket(name, tmp_path, capsys):
    options, words = REFUSED[name]
    models = Models({"mlp": MODELS["mlp"], "mlp_constant": MODELS["mlp_constant"], "gelu": gelu})
    code, _, error = call(capsys, "prove", *SMALL, "--epochs", "1", *options, "--out", tmp_path, models=models)
    assert code == 2 and words in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*"))

"""Run directories of others: nothing in them runs unasked, nothing outside is touched, what is damaged is told by its field."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import popup.lab.data.datasets
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.report.pictures import png, svg
from popup.lab.report.results import read_directory
from popup.lab.runs.schema import fitted
from popup.lab.text import printable, printable_lines
from popup.lab.trust import Trust, code_in

QUICK = ["--epochs", "1", "--widths", "8", "--controls", "none", "--threads", "1"]
STRANGER = """from pathlib import Path
Path(__file__).with_name("imported").write_text("")
import models
build = models.mlp
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three runs, and the report of all."""
    out = tmp_path_factory.mktemp("runs")
    assert main([*QUICK, "--seeds", "3", "--workers", "1", "--out", str(out)], MODELS) == 0
    return out


@pytest.fixture
def runs(finished, tmp_path):
    """A copy of these, with the directories of the three."""
    out = tmp_path / "runs"
    shutil.copytree(finished, out)
    return out, sorted(path.parent for path in out.glob("*/result.json"))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module in the working directory, and the file that it writes when it is imported."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path / "imported"
    sys.modules.pop("stranger", None)


def change(path, **values):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | values))


@pytest.mark.parametrize(("model", "dataset", "names"), [
    ("mlp", "digits", ()), ("torchvision:resnet18", "folder:/a b/c", ()), ("timm:vit_tiny_patch16_224.augreg", "cifar10", ()),
    ("chain:conv3p1-relu-flatten-linear", "digits", ()), ("os:abort", "digits", ("os:abort",)),
    ("mlp", "my.module:load", ("my.module:load",)), ("timm:x:y", "folder", ("timm:x:y",)), ("a b", "mlp\n", ("a b", "mlp\n")),
    ("", "digits", ("",)), (3, None, ("3", "None"))])
def test_which_names_run_code(model, dataset, names):
    assert code_in(model, dataset) == names
    assert Trust().lacks(model, dataset) == names and Trust(all=True).lacks(model, dataset) == ()
    assert Trust(frozenset(names)).lacks(model, dataset) == ()


def test_a_worker_runs_code_that_a_plan_names_only_where_it_is_named_too(stranger, tmp_path, capsys):
    plan = [*QUICK, "--out", "out", "--plan-only"]
    assert main([*plan, "--model", "mlp"], MODELS) == 0
    (other,) = (tmp_path / "out").iterdir()
    config = Config.from_record(json.loads((other / "config.json").read_text())).replace(model="stranger:build", seed=1)
    place = tmp_path / "out" / config.hash()
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config.record()))
    capsys.readouterr()
    assert main(["worker", "out", "--threads", "1"], MODELS) == 0
    said = capsys.readouterr().out
    assert "1 run in out/ would run code that the plan names (stranger:build): name it with --code, or give --trust" in said
    assert (other / "result.json").exists() and not (place / "result.json").exists() and not stranger.exists()
    assert main(["worker", "out", "--code", "stranger:load"], MODELS) == 2 and not stranger.exists()
    assert "stranger:build" in capsys.readouterr().err and "stranger" not in sys.modules
    assert main(["report", "out"], MODELS) == 0 and not stranger.exists()
    assert main(["worker", "out", "--code", "stranger:build", "--threads", "1"], MODELS) == 0
    assert (place / "result.json").exists() and stranger.exists()


def test_a_plan_of_ones_own_code_says_how_it_is_done(stranger, capsys):
    assert main([*QUICK, "--out", "out", "--plan-only", "--model", "stranger:build"], MODELS) == 0
    assert "python run.py worker out --code stranger:build\n" in capsys.readouterr().out
    assert main(["worker", "out", "--trust", "--threads", "1"], MODELS) == 0


@pytest.mark.parametrize(("how", "name"), [("single", ".lock"), ("single", "training.png"), ("single", "config.json"), *(
    ("worker", name) for name in (".lock", "metrics.jsonl", "ticket.safetensors", ".begun"))])
def test_a_link_in_a_runs_directory_leads_no_write_outside(how, name, runs, tmp_path, capsys):
    out, (run, *_) = runs
    victim, seed = tmp_path / "victim", json.loads((run / "config.json").read_text())["source"]["seed"]
    victim.write_bytes((run / name).read_bytes() if (run / name).exists() else b"a victim")
    content = victim.read_bytes()
    for path in (run / "result.json", run / "training.png", run / name):
        path.unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    arguments = ["worker", str(out), "--threads", "1"] if how == "worker" else [*QUICK, "--seed", str(seed), "--out", str(out)]
    assert main(arguments, MODELS) in (0, 2)
    assert victim.read_bytes() == content, capsys.readouterr()


@pytest.mark.parametrize("how", ["begun", "failed", "finished"])
def test_a_runs_directory_that_is_a_link_is_not_written_into(how, runs, tmp_path, capsys):
    out, (run, *_) = runs
    seed, elsewhere = json.loads((run / "config.json").read_text())["source"]["seed"], tmp_path / "elsewhere"
    run.rename(elsewhere)
    (elsewhere / "training.png").unlink(missing_ok=True)  # of a single run alone
    if how == "finished":
        (elsewhere / "checkpoint.safetensors").write_bytes(b"left by a process that was killed")
    else:
        (elsewhere / "result.json").unlink()
    if how == "failed":
        (elsewhere / "failure.json").write_text(json.dumps({"hash": run.name, "reason": "of old"}))
    run.symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    assert main([*QUICK, "--seed", str(seed), "--out", str(out)], MODELS) == (0 if how == "finished" else 2)
    assert ("is a link, and popup writes into no folder through one" in capsys.readouterr().err) == (how != "finished")
    main([*QUICK, "--seeds", "3", "--workers", "1", "--out", str(out)], MODELS)
    main(["worker", str(out), "--threads", "1", "--retry"], MODELS)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_a_folder_of_pictures_that_is_a_link_is_not_written_into(runs, tmp_path):
    out, _ = runs
    shutil.rmtree(out / "figures")
    (tmp_path / "pictures").mkdir()
    (out / "figures").symlink_to(tmp_path / "pictures")
    assert main(["report", str(out)], MODELS) == 2 and not list((tmp_path / "pictures").iterdir())


DEEP = "[" * 1000 + "]" * 1000
SEEN = ("text", "deep", "no text", "a config")
DAMAGE = {  # what is written over a file of a run, and the words on it
    "a number": ("result.json", "3", "it is 3, not an object"),
    "text": ("failure.json", '"x"', "it is 'x', not an object"),
    "cut": ("result.json", '{"hash": "1', "is damaged"),
    "deep": ("result.json", DEEP, "it nests too deep|not an object"),
    "deeper": ("failure.json", '{"reason":' * 9999, "it nests too deep"),
    "no text": ("metrics.jsonl", b"\xff\xfe{}", "metrics.jsonl is damaged .line 1.: 'utf-8' codec"),
    "no key": ("metrics.jsonl", '{"epoch": 1, "train_loss": 1, "test_loss": 1}\n', "test_accuracy is missing"),
    "no epoch": ("metrics.jsonl", "", "lacks an epoch's numbers"),
    "digits": ("result.json", {"seconds": 10**400}, "seconds is a number of many digits, not a number of usual size"),
    "more digits": ("result.json", "1" * 5000, "is damaged"),
    "no number": ("result.json", {"test_accuracy": float("nan")}, "test_accuracy is nan, not within 0 to 100"),
    "too much": ("result.json", {"test_accuracy": 100.5}, "test_accuracy is 100.5, not within 0 to 100"),
    "a type": ("result.json", {"epochs": "1"}, "epochs is '1', not a whole number"),
    "a bool": ("result.json", {"epochs": True}, "epochs is True, not a whole number"),
    "an object": ("result.json", {"layers": {}}, "layers is an object, not a list"),
    "nothing": ("result.json", {"layers": []}, "layers is missing"),
    "within": ("result.json", {"layers": [{"name": "x", "entries": 0}]}, r"layers\[0\].p_l is missing"),
    "a proof": ("result.json", {"proof": None}, "proof is missing"),
    "another's": ("result.json", {"hash": "0123456789ab"}, "is the result of another run"),
    "a config": ("config.json", {"task": 3}, "its groups are no objects"),
    "a field": ("config.json", {"training": {"epochs": None}}, "epochs is None, not a whole number"),
    "a role": ("config.json", {"task": {"role": "king"}}, "unknown role 'king'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_run_is_told_by_file_and_field_and_the_others_are_reported(case, runs, capsys, monkeypatch):
    out, (run, *_) = runs
    name, content, words = DAMAGE[case]
    if case not in SEEN:  # each kind of file is enough for the commands, which take a second
        monkeypatch.setattr("popup.lab.report.report._draw", lambda *_: [])
    before = (out / "results.csv").read_text().splitlines()
    if isinstance(content, dict):
        change(run / name, **content)
    elif name == "failure.json":
        (run / "result.json").unlink()
    if not isinstance(content, dict):
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_directory(out)
    assert len(found.runs) == 2 and len(found.damaged) == 1
    assert str(run / name) in found.damaged[run] and re.search(words, found.damaged[run]), found.damaged
    capsys.readouterr()
    assert main(["report", str(out)], MODELS) == 1
    printed = capsys.readouterr()
    assert "WARNING, 1 run left out, which cannot be read:" in printed.out and printed.err == ""
    assert "Left out" not in printed.out, "of another reason"
    rows = (out / "results.csv").read_text().splitlines()
    assert len(rows) == 3 and set(rows) < set(before), "the others' rows are those of before"
    if case in SEEN:
        code = main(["worker", str(out), "--threads", "1"], MODELS)
        assert code == (name == "config.json"), "who is asked to do it does it again, or says that it cannot"


@pytest.mark.parametrize("name", ["config.json", "result.json", "failure.json", "metrics.jsonl"])
@pytest.mark.parametrize("how", ["pipe", "device", "folder", "large"])
def test_what_is_no_file_of_sane_size_is_not_waited_for(name, how, runs, capsys):
    out, (run, *_) = runs
    if name == "failure.json":
        (run / "result.json").unlink()
    (run / name).unlink(missing_ok=True)
    if how == "large":
        with open(run / name, "wb") as file:
            file.truncate(1 << 40)
    else:
        {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[how](run / name)
    assert main(["report", str(out)], MODELS) == 1
    assert f"{run.name}/{name}" in capsys.readouterr().out.replace("\n    ", "")


def test_fields_of_a_later_version_are_left_out_and_numbers_stay_as_they_are(runs):
    out, (run, *_) = runs
    change(run / "result.json", sparkle=json.loads(DEEP[:400] + DEEP[-400:]), peak_memory=None)
    found = read_directory(out)
    assert not found.damaged and all("sparkle" not in one.result for one in found.runs)
    assert fitted(float, 1) == 1 and type(fitted(float, 1)) is int, "or a config would have another name"
    with pytest.raises(ValueError, match="not a whole number"):
        fitted(int, 1.0)


@pytest.mark.drawn
def test_names_are_text_for_a_picture_and_nothing_to_a_terminal(tmp_path, capsys, monkeypatch):
    """A model and a data set whose names are broken mathematics and orders to a terminal."""
    name = "$\\frac{$\x1b[31m\x07"
    digits = popup.lab.data.datasets.DATASETS["digits"](None)
    monkeypatch.setattr("popup.lab.commands.command.DATASETS", {name: None, "digits": None})
    small = Dataset(name, 10, *((images[:64], labels[:64]) for images, labels in (digits.train, digits.test)))
    monkeypatch.setitem(popup.lab.data.datasets.DATASETS, name, lambda request: small)
    grid = [*QUICK, "--dataset", name, "--k", "0.5", "0.3", "--workers", "1", "--out", str(tmp_path)]
    assert main(grid, MODELS) == 0
    assert main([*QUICK, "--k", "0.5", "0.3", "--workers", "1", "--out", str(tmp_path)], MODELS) == 0  # its name tells them apart
    assert main([*grid[:10], "--out", str(tmp_path)], MODELS) == 0
    assert main(["report", str(tmp_path), "--diagnostics"], MODELS) == 0
    printed = capsys.readouterr()
    assert not {"\x1b", "\x07"} & set(printed.out + printed.err) and "$\\frac{$?[31m?" in printed.out
    pages = [path.read_text() for path in (*tmp_path.glob("*.*"), *tmp_path.glob("figures/*.svg")) if path.suffix != ".png"]
    assert len(pages) > 5 and not any({"\x1b", "\x07"} & set(page) for page in pages)


@pytest.mark.drawn
def test_every_text_of_a_picture_is_taken_as_it_is():
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    panel = figure.subplots()
    panel.plot([1, 2], [1, 1000], label="$\\frac{$")
    panel.set(title="$a$", xlabel="\ud800 $", yscale="log")
    panel.set_xticks([1, 2], ["$\\bad{$", "$"])
    panel.legend(title="$\\frac{$")
    figure.suptitle("$\\frac{$ \x01")
    assert png(figure).startswith(b"\x89PNG")
    text = svg(figure, "x")
    assert text == svg(figure, "x") and "\x01" not in text
    assert [label.get_text() for label in panel.get_yticklabels()][1].startswith("$\\mathdefault{10"), "powers stay powers"


def test_a_line_of_text():
    assert printable("a\x1b[2Jb\ud800\n\u202ec") == "a?[2Jb???c" and printable("é 漢字 ±") == "é 漢字 ±"
    assert printable("x" * 2000) == "x" * 1000 and printable_lines("a\nb\r\x07") == "a\nb??"


@pytest.mark.parametrize("arguments", [["--model", "\x1b[31mx"], ["report", "\x1b[31mx"], ["show", "\x1b[31mx"]])
def test_the_last_line_is_text(arguments, capsys):
    assert main(arguments, MODELS) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_file_that_changed_makes_other_data_whoever_loads_them(tmp_path, capsys, monkeypatch):
    """A loader of the registry that gives no fingerprint."""
    digits = popup.lab.data.datasets.DATASETS["digits"](None)
    shift = tmp_path / "shift"

    def load(request):
        train, test = ((images[:64] + int(shift.read_text()), labels[:64]) for images, labels in (digits.train, digits.test))
        return Dataset("shifted", 10, train, test)

    monkeypatch.setitem(popup.lab.data.datasets.DATASETS, "shifted", load)
    command = [*QUICK, "--dataset", "shifted", "--out", str(tmp_path / "out")]
    shift.write_text("0")
    assert main(command, MODELS) == 0 and main(command, MODELS) == 0
    assert "finished before" in capsys.readouterr().out
    shift.write_text("1")
    assert main(command, MODELS) == 2
    assert "saw other images than shifted has now" in capsys.readouterr().err
    (result,) = (tmp_path / "out").glob("*/result.json")
    assert len(json.loads(result.read_text())["data_fingerprint"]) == 64


def test_forged_tickets_are_refused_by_eval_and_by_verify(runs, forge, capsys):
    _, (run, *_) = runs
    ticket, copy = run / "ticket.safetensors", run / "copy.safetensors"
    cases = [(lambda metadata, tensors: metadata["about"].update(normalise=None), "images are used as they are", 2, 0),
             (lambda metadata, tensors: metadata["about"].update(precision="fp8"), "the precision 'fp8'", 2, 0),
             (lambda metadata, tensors: tensors.update({"given/stranger": torch.ones(3)}), "'stranger'", 2, 1),
             (lambda metadata, tensors: tensors.update({"statistics/stranger": torch.ones(3)}), "'stranger'", 2, 1)]
    for spoil, words, eval_code, verify_code in cases:
        shutil.copy(ticket, copy)
        forge(copy, spoil)
        capsys.readouterr()
        assert main(["eval", str(copy)], MODELS) == eval_code and words in capsys.readouterr().err
        assert main(["verify", str(copy)], MODELS) == verify_code
        if verify_code:
            printed = capsys.readouterr().out
            assert "BROKEN every tensor of the file is one of the network that it is of" in printed and words in printed


@pytest.mark.parametrize(("arguments", "words"), [
    (["--seeds", str(10**7)], "the grid has 10,000,000 runs"), (["--seeds", str(10**30)], "at most 100,000 are taken"),
    (["--er-p", *(f"0.{number:04}" for number in range(1, 401)), "--k", *(f"0.{number:04}" for number in range(1, 401))],
     "the grid has 160,000 runs"),
    (["--model", "m" * 100_000], "model has 100,000 letters"), (["--model", "chain:" + "-".join(["relu"] * 100_000)], "letters"),
    (["--dataset", "d" * 100_000], "dataset has 100,000 letters"), (["--density", "d" * 100_000], "unknown density"),
    (["--epochs", "9" * 4000], "epochs")])
def test_what_would_take_hours_is_refused_at_once(arguments, words, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path)], MODELS) == 2
    error = capsys.readouterr().err
    assert words in error and len(error) < 5000


def test_help_in_one_column_is_as_if_there_were_forty(capsys, monkeypatch):
    said = []
    for columns in ("1", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit):
            main(["worker", "--help"], MODELS)
        said.append(capsys.readouterr().out)
        assert os.environ["COLUMNS"] == columns
    assert said[0] == said[1]


def test_a_slice_of_the_changes_that_the_fuzzer_makes():
    """The whole: python tests/lab/mutate_runs.py 5000"""
    done = subprocess.run([sys.executable, Path(__file__).with_name("mutate_runs.py"), "10", "3"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["changes"] == 10, done.stderr[-3000:]


def test_a_control_does_not_wait_for_a_ticket_whose_config_cannot_be_read(tmp_path, capsys):
    assert main([*QUICK[:4], "--controls", "random", "--plan-only", "--out", str(tmp_path)], MODELS) == 0
    (ticket,) = [path for path in tmp_path.glob("*/config.json") if json.loads(path.read_text())["task"]["role"] == "ticket"]
    ticket.write_text("{}3")
    assert main(["worker", str(tmp_path), "--threads", "1"], MODELS) == 2
    printed = capsys.readouterr()
    assert "are controls of tickets whose directories are gone" in printed.err
    assert f"{ticket.parent.name}/config.json" in printed.out

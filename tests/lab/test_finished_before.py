"""A run that was finished before is printed from its directory: what is missing or damaged there is told in one line."""

import json
import shutil

import pytest

from models import MODELS
from popup.lab.commands.command import main

COMMAND = ["--epochs", "1", "--widths", "8", "--out"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main([*COMMAND, str(out)], MODELS) == 0
    return out


@pytest.fixture
def run(finished, tmp_path):
    """The directory of a copy of a finished run."""
    shutil.copytree(finished, tmp_path / "runs")
    (place,) = (tmp_path / "runs").iterdir()
    return place


def again(run, capsys):
    """Exit code, output and the error's line of the same command."""
    capsys.readouterr()
    code = main([*COMMAND, str(run.parent)], MODELS)
    found = capsys.readouterr()
    assert found.err.count("\n") <= 1
    return code, found.out, found.err


def test_what_is_whole_is_printed(run, capsys):
    (run / "training.png").unlink()  # of a copy that left it out: it is drawn again
    code, out, err = again(run, capsys)
    assert code == 0 and not err and "finished before" in out and (run / "training.png").exists()
    assert out.endswith("/: config.json metrics.jsonl result.json ticket.safetensors training.png\n")


def without(*names):
    """A change of a result that leaves out the value at the path `names`."""
    def change(result):
        for name in names[:-1]:
            result = result[name]
        del result[names[-1]]
    return change


RESULTS = ["{}", "[]", "3", "null", '{"proof": null}', '"' + "x" * 99 + '"', "{", "\0\0", "", b"\xff\xfe",
           lambda result: result.update(hash="0" * 12), lambda result: result.update(proof=None),
           lambda result: result.update(layers=[1]), lambda result: result.update(test_accuracy="high"),
           lambda result: result.update(proof={"holds": True}), lambda result: result.update(layers=[{"name": "a"}]),
           without("seconds"), without("epochs"), without("layers", 0, "density"), without("proof", "miscounted")]


@pytest.mark.parametrize("result", RESULTS)
def test_a_foreign_or_damaged_result_is_one_line(result, run, capsys):
    path = run / "result.json"
    if callable(result):
        content = json.loads(path.read_text())
        result(content)
        result = json.dumps(content)
    path.write_bytes(result if isinstance(result, bytes) else result.encode())
    code, _, err = again(run, capsys)
    assert code == 2 and f"{path} is " in err and "remove it to run again" in err, err


@pytest.mark.parametrize("metrics", ["", '{"epoch": 1}\n', "3\n", "[]\n", "{\n", '{"epoch": 1, "train_loss": "low", '
                                     '"test_loss": 1, "test_accuracy": 1}'])
def test_damaged_metrics_are_one_line(metrics, run, capsys):
    (run / "metrics.jsonl").write_text(metrics)
    (run / "training.png").unlink()
    code, _, err = again(run, capsys)
    assert code == 2 and f"{run / 'metrics.jsonl'} is damaged" in err and "run it again" in err, err


def test_a_ticket_that_is_gone_is_told_and_nothing_that_is_not_there_is_called_written(run, capsys):
    (run / "ticket.safetensors").unlink()
    code, out, err = again(run, capsys)
    assert code == 1 and out.endswith("/: config.json metrics.jsonl result.json training.png\n")
    assert f"the ticket of this finished run is gone, {run / 'ticket.safetensors'}: remove its directory to run it again" in err


def test_metrics_that_are_gone_are_one_line(run, capsys):
    (run / "metrics.jsonl").unlink()
    (run / "training.png").unlink()
    code, _, err = again(run, capsys)
    assert code == 2 and f"{run / 'metrics.jsonl'} is gone: remove that run's directory and run it again" in err
    assert main(["report", str(run.parent)], MODELS) == 2 and "is gone" in capsys.readouterr().err


@pytest.mark.parametrize("change", [lambda rows: [*rows, *rows], lambda rows: rows[::-1], lambda rows: rows[:1],
                                    lambda rows: rows[1:]])
def test_metrics_of_other_epochs_than_the_results_are_damaged(change, tmp_path, capsys):
    command = ["--epochs", "2", "--widths", "8", "--out", str(tmp_path)]
    assert main(command, MODELS) == 0
    (metrics,) = tmp_path.glob("*/metrics.jsonl")
    assert main(["report", str(tmp_path)], MODELS) == 0
    metrics.write_text("".join(change(metrics.read_text().splitlines(True))))
    capsys.readouterr()
    assert main(["report", str(tmp_path)], MODELS) == 2
    assert f"{metrics} is damaged (it" in capsys.readouterr().err


def test_a_config_that_is_gone_is_written_again_so_that_reports_find_the_run(run, capsys):
    content = (run / "config.json").read_bytes()
    (run / "config.json").unlink()
    assert again(run, capsys)[0] == 0 and (run / "config.json").read_bytes() == content
    assert main(["report", str(run.parent)], MODELS) == 0


def test_every_methods_run_is_printed_again(tmp_path, capsys):
    for method in ("random", "gates"):
        command = ["--method", method, "--epochs", "1", "--widths", "8", "--out", str(tmp_path)]
        assert main(command, MODELS) == 0 and main(command, MODELS) == 0

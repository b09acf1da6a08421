"""What goes wrong around a worker: a machine that cannot do the cells, tickets that are gone, errors nobody has thought of."""

import json
import multiprocessing
import shutil
import signal
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models import MODELS
from popup.errors import UsageError
from popup.lab.commands import sweep_command
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs import sweep
from popup.lab.runs.cell import Cell
from popup.lab.runs.checks import check
from popup.lab.runs.controls import TICKET
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.sweep import Bar, Pool, Worker, _worker
from popup.lab.runs.worker import Event, _check_tickets
from popup.lab.training.stop import RunFailed
from popup.ticket import coding

QUICK = ["--epochs", "1", "--widths", "16", "--workers", "1"]

OWN = """
import torch
from torch import nn

def load():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = (images.float().mean((1, 2, 3)) > 127).long()
    return (images[:40], labels[:40]), (images[40:], labels[40:])

class Careless(nn.Sequential):
    def forward(self, x):
        if self.training:
            return {}["a mistake"]
        return super().forward(x)

def careless(image, classes):
    return Careless(nn.Flatten(), nn.Linear(16, classes))
"""


def cells(out, end):
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"*/{end}.json"))]


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("popup: "), error
    return error


def test_a_machine_that_cannot_do_the_cells_leaves_them_to_others(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_faults.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    grid = ["--dataset", "own_faults:load", *QUICK, "--batch-size", "8", "--seeds", "2", "--controls", "random", "--out", "runs"]
    assert main([*grid, "--plan-only"], MODELS) == 0
    (tmp_path / "own_faults.py").rename(tmp_path / "elsewhere.py")
    monkeypatch.delitem(sys.modules, "own_faults")
    capsys.readouterr()
    assert main(["worker", "runs", "--code", "own_faults:load"], MODELS) == 2
    assert "own_faults:load' is not there" in one_line(capsys)
    assert main(["worker", "runs", "--trust", "--log", "tensorboard"], MODELS) == 2
    assert not cells(tmp_path / "runs", "failure")
    (tmp_path / "elsewhere.py").rename(tmp_path / "own_faults.py")
    assert main(["worker", "runs", "--trust"], MODELS) == 0 and len(cells(tmp_path / "runs", "result")) == 4


def test_a_log_without_its_package_fails_no_cell(tmp_path, capsys, monkeypatch):
    assert main([*QUICK, "--plan-only", "--out", str(tmp_path)], MODELS) == 0
    monkeypatch.setitem(sys.modules, "wandb", None)
    capsys.readouterr()
    assert main(["worker", str(tmp_path), "--log", "wandb"], MODELS) == 2
    assert "--log wandb needs a package" in one_line(capsys) and not cells(tmp_path, "failure")


def test_a_cell_of_its_own_fault_fails_and_says_why_and_how_it_is_tried_again(tmp_path, capsys):
    grid = [*QUICK, "--er-p", "0.5", "1e-5", "--mask", "snip", "--controls", "none", "--out", str(tmp_path)]
    assert main([*grid, "--plan-only"], MODELS) == 0
    capsys.readouterr()
    assert main(["worker", str(tmp_path)], MODELS) == 1
    printed = capsys.readouterr().out
    (failure,) = cells(tmp_path, "failure")
    assert "raise er_p" in failure["reason"] and len(cells(tmp_path, "result")) == 1
    assert f"failed {failure['hash']} ticket p=1e-05 k=0.5 seed 0 mask snip: {failure['reason'][:20]}" in printed
    assert f"python run.py worker {tmp_path} --retry\n" in printed and "1 failed:" in printed
    assert main(["worker", str(tmp_path)], MODELS) == 0, "nobody tries again unasked"
    assert "--retry" in capsys.readouterr().out
    (tmp_path / failure["hash"] / "failure.json").write_text('{"reason": "a disk that was full"}')
    assert main(["worker", str(tmp_path), "--retry"], MODELS) == 1
    assert cells(tmp_path, "failure") == [failure]


def test_controls_whose_tickets_are_gone_end_a_worker_with_one_line(tmp_path, capsys):
    grid = [*QUICK, "--seeds", "2", "--controls", "random", "dense_trained", "--out", str(tmp_path)]
    assert main([*grid, "--plan-only"], MODELS) == 0
    gone = Cell(tmp_path, Config.from_flat({"epochs": 1, "widths": (16,), "compute": "dense"}))
    assert gone.path.is_dir()
    shutil.rmtree(gone.path)
    capsys.readouterr()
    assert main(["worker", str(tmp_path)], MODELS) == 2
    assert f"are gone ({gone.path}): plan the grid again" in one_line(capsys)
    assert len(cells(tmp_path, "result")) == 4, "all others are done before"
    assert main([*grid, "--plan-only"], MODELS) == 0 and main(["worker", str(tmp_path)], MODELS) == 0
    assert len(cells(tmp_path, "result")) == 6


def test_a_tickets_file_that_is_gone_is_the_reason_of_its_control(tmp_path, capsys):
    assert main([*QUICK, "--out", str(tmp_path)], MODELS) == 0
    (ticket,) = tmp_path.glob("*/ticket.safetensors")
    ticket.unlink()
    assert main([*QUICK, "--controls", "random", "--out", str(tmp_path)], MODELS) == 1
    (failure,) = cells(tmp_path, "failure")
    assert str(ticket) in failure["reason"] and "remove that directory" in failure["reason"]
    assert "2 runs: 1 finished, 1 failed, 0 open; the same command" in capsys.readouterr().out
    shutil.rmtree(ticket.parent)
    assert main([*QUICK, "--controls", "random", "--out", str(tmp_path)], MODELS) == 0
    assert "2 runs: 2 finished, 0 failed, 0 open\n" in capsys.readouterr().out


def test_a_run_whose_saved_ticket_cannot_be_used_again_has_failed(tmp_path, capsys, monkeypatch):
    narrow = coding.compress_counts
    monkeypatch.setattr(coding, "compress_counts", lambda counts: narrow(counts // 2))
    grid = [*QUICK, "--method", "iterand", "--redraw-every", "10", "--out", str(tmp_path)]
    assert main(grid, MODELS) == 1
    assert "the ticket that it has saved cannot be used again: 1.weight: the seed gives other weights" in one_line(capsys)
    assert not cells(tmp_path, "result")
    monkeypatch.undo()
    assert main(grid, MODELS) == 0 and len(cells(tmp_path, "result")) == 1


def test_an_error_nobody_has_thought_of_is_the_cells_reason_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_faults.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert main(["--epochs", "1", "--model", "own_faults:careless", "mlp", "--dataset", "own_faults:load", "--controls", "none",
                 "--batch-size", "8", "--workers", "1", "--out", "runs"], MODELS) == 1
    (failure,) = cells(tmp_path / "runs", "failure")
    assert failure["reason"] == "KeyError: 'a mistake'" and "own_faults.py" in "".join(failure["traceback"])
    assert len(cells(tmp_path / "runs", "result")) == 1


@pytest.mark.parametrize(("error", "kind"), [(TypeError("not\nthis"), "dying"), (UsageError("no folder 'x'"), "refused"),
                                             (OSError(28, "No space left on device"), "broken")])
def test_a_process_of_a_pool_says_what_it_ended_of(error, kind, tmp_path, monkeypatch):
    def work(*arguments):
        raise error

    monkeypatch.setattr(sweep, "work", work)
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    mine, theirs = multiprocessing.Pipe(duplex=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _worker(MODELS, Machine("cpu"), tmp_path, [], theirs)
    except SystemExit as end:
        assert end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    theirs.close()
    parent = Worker.__new__(Worker)
    parent.events, parent.cell, parent.said, parent.process = mine, "", "", SimpleNamespace(exitcode=1)
    if kind != "dying":  # which ends the sweep, and fails no cell
        with pytest.raises({"refused": UsageError, "broken": RunFailed}[kind], match=r"no folder 'x'|No space left on device"):
            parent.read()
    else:
        assert parent.read() is None
        assert parent.last_words() == "TypeError: not this"


def test_a_process_that_says_nothing_is_told_by_its_signal():
    worker = Worker.__new__(Worker)
    worker.said, worker.process = "", SimpleNamespace(exitcode=-9)
    assert worker.last_words() == "killed by signal 9, which often means out of memory"
    worker.process.exitcode = -11
    assert worker.last_words() == "killed by signal 11"
    worker.process.exitcode = 3
    assert worker.last_words() == "exit code 3"


def test_a_run_that_kills_its_process_twice_counts_as_over(tmp_path):
    pool, cell = Pool.__new__(Pool), Cell(tmp_path, Config())
    pool.deaths, pool.cells = Counter(), {cell.name: cell}
    worker = SimpleNamespace(cell=cell.name, last_words=lambda: "exit code 7")
    assert pool._bury(worker) == [] and not cell.over()
    (event,) = pool._bury(worker)
    assert (event.kind, event.cell) == ("failed", cell.name) and cell.failure() == "its worker died twice: exit code 7"
    worker.cell = ""
    pool._bury(worker)
    with pytest.raises(RunFailed, match="before they start a run: exit code 7"):
        pool._bury(worker)


@pytest.mark.parametrize(("options", "words"), [
    (["--controls", "random"], "2 runs: 1 ticket and 1 control, planned"), (["--seeds", "2"], "2 runs: 2 tickets and 0 controls"),
    (["--controls", "none"], "1 run: 1 ticket and 0 controls")])
def test_one_is_told_as_one(options, words, tmp_path, capsys):
    assert main([*QUICK, "--controls", "none", *options, "--plan-only", "--out", str(tmp_path)], MODELS) == 0
    assert words in capsys.readouterr().out


def test_a_gpu_that_is_lost_is_no_fault_of_the_cell(tmp_path, monkeypatch):
    def lost(*arguments):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("popup.lab.runs.worker.run", lost)
    with pytest.raises(RuntimeError, match="CUDA error"):
        main([*QUICK, "--controls", "random", "--out", str(tmp_path)], MODELS)
    assert not cells(tmp_path, "failure")


def test_a_report_of_a_directory_that_cannot_be_written_is_the_table(tmp_path, capsys, monkeypatch):
    def refuse(out):
        raise UsageError(f"cannot write to --out {str(out)!r} (Read-only file system): name a directory you can write to")

    assert main([*QUICK, "--seeds", "2", "--controls", "none", "--out", str(tmp_path)], MODELS) == 0
    (tmp_path / "results.csv").unlink()
    monkeypatch.setattr(sweep_command, "check_writable", refuse)
    capsys.readouterr()
    assert main(["report", str(tmp_path)], MODELS) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Test accuracy in %") and printed.count("Read-only file system") == 1
    assert "neither CSV nor pictures" in printed.splitlines()[-1] and not (tmp_path / "results.csv").exists()


def test_a_report_names_what_failed_and_cuts_no_reason(tmp_path, capsys):
    assert main([*QUICK, "--controls", "none", "--seeds", "2", "--out", str(tmp_path)], MODELS) == 0
    cell = Cell(tmp_path, Config.from_flat({"epochs": 1, "widths": (16,), "er_p": 0.25, "density": "erk", "role": TICKET}))
    cell.fail("because " * 30 + "of the end")
    capsys.readouterr()
    assert main(["report", str(tmp_path)], MODELS) == 0
    printed = capsys.readouterr().out
    assert f"{cell.name} ticket p=0.25 k=0.5 seed 0 density erk: because" in printed and "of the end" in printed
    assert f"{tmp_path}/HASH/: config.json metrics.jsonl failure.json" in printed


@pytest.mark.parametrize("grid", [["--model", "mlp", "lenet5", "--widths", "10", "20"], ["--model", "mlp", "own_faults:build"]])
def test_every_network_of_a_grid_is_built_before_it_begins(grid, tmp_path, capsys, monkeypatch):
    (tmp_path / "own_faults.py").write_text("def build(image):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    for how in ([], ["--plan-only"]):
        assert main([*grid, *how, "--out", "runs"], MODELS) == 2
        assert "model 'lenet5'" in (error := one_line(capsys)) or "model 'own_faults:build'" in error
    assert not list(tmp_path.glob("runs/*/config.json"))


def test_a_networks_outline_takes_no_memory_and_draws_nothing(tmp_path):
    laboratory, built = Laboratory({"huge": lambda image, classes: built.append(1) or huge()}, Machine("cpu"), tmp_path), []

    def huge():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 1 << 32), nn.Linear(1 << 32, 10))

    torch.manual_seed(3)
    state = torch.get_rng_state()
    for seed in (0, 1):
        check(laboratory, Config.from_flat({"model": "huge", "seed": seed}))
    assert built == [1] and torch.equal(torch.get_rng_state(), state)


def test_a_ticket_that_is_done_again_is_not_gone(tmp_path):
    """Another worker's list holds controls of a ticket that was over when the list was made, and is retried."""
    ticket = Config.from_flat({"epochs": 1, "widths": (16,)})
    control = Cell(tmp_path, ticket.replace(role="random"))
    with pytest.raises(UsageError, match="are gone"):
        _check_tickets([control])
    control.needs[0].write_config()
    _check_tickets([control])


def test_a_cell_counts_once_however_often_it_is_told_to_be_over(capsys):
    with Bar(2, 0) as bar:
        bar.show([Event("started", "a"), Event("finished", "a"), Event("failed", "a"), Event("finished", "b")])
    assert (bar.done, bar.failed) == (2, 0) and "2 of 2 runs done, 0 failed" in capsys.readouterr().out

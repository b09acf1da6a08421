"""Workers by hand on one directory: a planned grid, claims, kills, file systems without locks."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from models import MODELS
from popup.errors import UsageError
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs.cell import Cell, check_locks
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.worker import work
from popup.lab.training.stop import Stopped

ROOT = Path(__file__).parents[2]
GRID = ["--epochs", "16", "--widths", "64", "--er-p", "0.3", "--k", "0.3", "0.5", "--seeds", "2", "--controls", "random"]
NOT_MEASURED = ("seconds", "peak_memory")


def interrupted(out, laboratory, *arguments):
    """A run; Ctrl-C instead where one is finished."""
    if list(out.glob("*/result.json")):
        raise Stopped(signal.SIGINT)
    return run(laboratory, *arguments)


def rows(out):
    """The CSV of a report on `out`, without what differs from run to run."""
    assert main(["report", str(out)], MODELS) == 0
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in NOT_MEASURED} for row in csv.DictReader(file)]


def test_workers_do_each_cell_once_though_two_are_killed(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "tests/lab/workers.py"), "3", "2", str(tmp_path / "shared"), *GRID],
                          cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = json.loads(done.stdout)
    assert found["cells"] == 8 and found["not once"] == []
    assert [len(cells) for cells in found["killed"]] == [1, 1] and found["begun again"] == 2
    assert found["codes"] == [-9, -9, 0]
    assert main([*GRID, "--workers", "1", "--out", str(tmp_path / "alone")], MODELS) == 0
    assert rows(tmp_path / "shared") == rows(tmp_path / "alone")


def test_a_plan_is_reported_and_done_and_planned_again(tmp_path, capsys):
    grid = ["--epochs", "1", "--widths", "16", "--seeds", "2", "--controls", "none", "--out", str(tmp_path)]
    assert main([*grid, "--plan-only"], MODELS) == 0
    assert "2 runs: 2 tickets and 0 controls" in capsys.readouterr().out
    assert not list(tmp_path.glob("*/result.json"))
    assert main(["report", str(tmp_path)], MODELS) == 0
    assert "none of 2 planned runs is over yet" in capsys.readouterr().out
    assert main(["worker", str(tmp_path)], MODELS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits (scikit-learn): 1,438 images of 1x8x8")
    assert [line.split()[1] for line in lines[1:]] == ["started", "finished", "started", "finished", "nothing"]
    assert main([*grid, "--plan-only", "--k", "0.25"], MODELS) == 0
    assert main(["report", str(tmp_path)], MODELS) == 0
    assert "2 of 4 runs are not over yet" in capsys.readouterr().out
    assert main(["worker", str(tmp_path)], MODELS) == 0
    assert len(rows(tmp_path)) == 4


def test_a_sweep_that_is_interrupted_is_a_plan(tmp_path, capsys, monkeypatch):
    grid = ["--epochs", "1", "--widths", "16", "--seeds", "2", "--controls", "random", "--workers", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("popup.lab.runs.worker.run", partial(interrupted, tmp_path))
        assert main(grid, MODELS) == 130
    capsys.readouterr()
    assert main(["report", str(tmp_path)], MODELS) == 0
    assert "3 of 4 runs are not over yet" in capsys.readouterr().out
    assert main([*grid, "--k", "0.25"], MODELS) == 0, "another grid goes its own way"
    assert "4 runs: 4 finished, 0 failed, 0 open" in capsys.readouterr().out
    assert main(["worker", str(tmp_path)], MODELS) == 0
    assert "this worker finished 3 runs, 0 failed" in capsys.readouterr().out
    (tmp_path / "report.txt").unlink()
    assert len(rows(tmp_path)) == 8 and "not over" not in capsys.readouterr().out
    assert main(grid, MODELS) == 0
    assert "4 runs: 4 finished, 0 failed, 0 open" in capsys.readouterr().out


def test_a_worker_leaves_with_1_when_its_cell_failed_and_a_new_plan_tries_it_again(tmp_path, capsys):
    grid = ["--epochs", "1", "--widths", "16", "--lr", "1e30", "--gain", "1e20", "--out", str(tmp_path), "--plan-only"]
    assert main(grid, MODELS) == 0
    assert main(["worker", str(tmp_path)], MODELS) == 1
    assert main(["worker", str(tmp_path)], MODELS) == 0, "it is over: nobody tries again unasked"
    assert main(grid, MODELS) == 0 and not list(tmp_path.glob("*/failure.json"))


def test_a_worker_without_a_plan_is_told_so(tmp_path, capsys):
    assert main(["worker", str(tmp_path / "absent")], MODELS) == 2
    assert "no directory" in capsys.readouterr().err
    assert not (tmp_path / "absent").exists()
    assert main(["worker", str(tmp_path)], MODELS) == 2
    assert "nothing is planned in" in capsys.readouterr().err


def test_a_file_system_without_locks_is_an_error_and_not_a_cell_of_another(tmp_path, monkeypatch):
    def refuse(number):
        def lockf(file, how):
            raise OSError(number, os.strerror(number))
        return lockf

    cell = Cell(tmp_path, Config())
    monkeypatch.setattr("fcntl.lockf", refuse(errno.ENOLCK))
    with pytest.raises(OSError, match=r"cannot lock .*: name another --out"), cell.claim():
        pass
    monkeypatch.setattr("fcntl.lockf", refuse(errno.EAGAIN))
    with cell.claim() as mine:
        assert not mine


@pytest.mark.parametrize(("options", "refused"), [
    ("rw,vers=4.2,hard,local_lock=none", False), ("rw,vers=3,nolock,local_lock=all", True), ("rw,localflock", True)])
def test_a_mount_whose_locks_no_other_machine_sees_is_refused(options, refused, tmp_path):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:0 / / rw - tmpfs none rw,nolock\n"
                      f"2 1 {os.major(device)}:{os.minor(device)} / /runs rw - nfs4 server:/runs {options}\n")
    if refused:
        with pytest.raises(UsageError, match="is mounted with"):
            check_locks(tmp_path, mounts)
    else:
        assert check_locks(tmp_path, mounts) == tmp_path


def test_runs_of_an_older_version_are_reported_and_its_plans_left_alone(tmp_path, capsys):
    grid = ["--epochs", "1", "--widths", "16", "--seeds", "2", "--controls", "none", "--out", str(tmp_path)]
    assert main(grid, MODELS) == 0
    assert main([*grid, "--k", "0.25", "--plan-only"], MODELS) == 0
    for path in tmp_path.glob("*/config.json"):  # a version without the last field would have written this
        record = json.loads(path.read_text())
        del record["training"]["sync_norm"]
        path.write_text(json.dumps(record))
        path.parent.rename(tmp_path / f"0{path.parent.name[1:]}")
    capsys.readouterr()
    assert len(rows(tmp_path)) == 2
    assert "2 unfinished runs were planned by another version of popup" in capsys.readouterr().out
    assert main(["worker", str(tmp_path)], MODELS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 unfinished runs" in lines[0] and "nothing is left to do" in lines[1] and len(lines) == 2


def test_a_cell_that_kills_its_workers_is_called_failed(tmp_path, monkeypatch):
    """A worker a process, as by hand; each is gone in the middle of the run, as if for want of memory."""
    def worker():
        process = os.fork()
        if process:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        monkeypatch.setattr("popup.lab.runs.worker.run", lambda *arguments: os._exit(99))
        work(Laboratory(MODELS, Machine("cpu"), tmp_path), [Config()], lambda event: None)
        os._exit(0)

    cell = Cell(tmp_path, Config())
    cell.write_config()
    assert [worker() for _ in range(3)] == [99] * 3 and not cell.over()
    (cell.path / "checkpoint.safetensors").write_bytes(b"the third came further than the others")
    assert [worker() for _ in range(3)] == [99] * 3 and not cell.over()
    assert worker() == 0 and "3 workers in a row were killed" in cell.failure()
    assert worker() == 0, "it is over"
    cell.forget_failure()
    assert worker() == 99, "and a new plan tries it again"


def test_a_worker_whose_ticket_breaks_a_law_says_so_and_ends_with_1(tmp_path, capsys, monkeypatch):
    def broken(laboratory, *arguments):
        found = run(laboratory, *arguments)
        return {**found, "proof": found["proof"] and {**found["proof"], "holds": False}}

    assert main(["--epochs", "1", "--widths", "8", "--seeds", "2", "--plan-only", "--controls", "none", "--out", str(tmp_path)],
                MODELS) == 0
    monkeypatch.setattr("popup.lab.runs.worker.run", broken)
    capsys.readouterr()
    assert main(["worker", str(tmp_path)], MODELS) == 1
    out = capsys.readouterr().out
    assert out.count(": its proof is BROKEN") == 2 and "finished 2 runs, 0 failed" in out

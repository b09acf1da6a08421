"""--cluster: the grid as jobs through submitit's local executor, and what SLURM would be asked for."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from models import MODELS
from popup.errors import UsageError
from popup.lab.cluster import Cluster
from popup.lab.commands import cluster_command, sweep_command
from popup.lab.commands.cluster_command import WorkerJob
from popup.lab.commands.command import main
from popup.lab.machine import Machine
from popup.lab.runs import sweep
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.stop import Stop

ROOT = Path(__file__).parents[2]
GRID = ["--epochs", "2", "--widths", "32", "--k", "0.3", "0.5", "--seeds", "2", "--controls", "random"]
NOT_MEASURED = ("seconds", "peak_memory", "threads", "hardware")
submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")


def rows(out):
    assert main(["report", str(out)], MODELS) == 0
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in NOT_MEASURED} for row in csv.DictReader(file)]


@submitit
def test_jobs_leave_the_csv_of_the_same_sweep_here(tmp_path):
    out = tmp_path / "jobs"
    command = [sys.executable, str(ROOT / "run.py"), *GRID, "--cluster", "local", "--workers", "2", "--out", str(out)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          check=True)
    assert "8 runs: 4 tickets and 4 controls, 8 of them to be done, submitted into" in done.stdout
    assert main([*GRID, "--workers", "1", "--out", str(tmp_path / "here")], MODELS) == 0
    while len(list(out.glob("jobs/*_result.pkl"))) < 2:
        assert main(["report", str(out)], MODELS) == 0, "at any time"
        time.sleep(0.5)
    assert rows(out) == rows(tmp_path / "here")
    logs = "".join(path.read_text() for path in out.glob("jobs/*.out"))
    assert logs.count(": finished ") == 8


@submitit
def test_a_job_whose_time_is_over_writes_a_checkpoint_and_is_requeued(tmp_path, monkeypatch):
    """In this process: submitit's signal within a run ends it, and submitit's handler, which requeues, is called."""
    assert main(["--epochs", "50", "--widths", "32", "--plan-only", "--out", str(tmp_path)], MODELS) == 0
    asked, announced, seen = [], signal.SIGUSR2, []
    before = signal.signal(announced, lambda number, frame: asked.append(number))
    check = Stop.check

    def at_the_40th_step(stop):
        seen.append(1)
        if len(seen) == 40:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), announced)
        check(stop)

    monkeypatch.setattr(cluster_command, "_export_ranks", lambda: None)
    monkeypatch.setattr(Stop, "check", at_the_40th_step)
    try:
        job = WorkerJob(MODELS, Machine("cpu"), tmp_path)
        assert job() == 128 + announced and asked == [announced]
    finally:
        signal.signal(announced, before)
    assert len(list(tmp_path.glob("*/checkpoint.safetensors"))) == 1 and not list(tmp_path.glob("*/result.json"))
    monkeypatch.setattr(Stop, "check", check)
    assert job.checkpoint().function == job and job() == 0
    assert len(list(tmp_path.glob("*/result.json"))) == 1


def test_a_termination_alone_writes_a_checkpoint_and_the_job_goes_on(tmp_path):
    stop = Stop()
    stop.ask_checkpoint(signal.SIGTERM)
    checkpoints = Checkpoints(tmp_path / "c", stop=stop, seconds=1e9)
    assert [checkpoints._due(), checkpoints._due()] == [True, False]
    stop.check()


def test_what_slurm_is_asked_for():
    cluster = Cluster("slurm", "gpu", 2.5, gpus=4, nodes=2, cpus=8, memory=64.0, sbatch=("account=lab", "qos=low"))
    assert cluster.parameters(20) == {
        "name": "popup", "timeout_min": 150, "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4, "cpus_per_task": 8,
        "mem_gb": 64.0, "slurm_array_parallelism": 20, "slurm_partition": "gpu",
        "slurm_additional_parameters": {"account": "lab", "qos": "low"}}
    plain = Cluster("slurm").parameters(1)
    assert not {"mem_gb", "slurm_partition", "slurm_additional_parameters"} & plain.keys() and plain["tasks_per_node"] == 1


@pytest.mark.parametrize(("options", "reason"), [
    (["--cluster", "slrum"], "did you mean 'slurm'?"), (["--cluster", "slurm", "--hours", "0.02"], "hours is 0.02"),
    (["--cluster", "slurm", "--sbatch", "account"], "give NAME=VALUE"),
    (["--cluster", "slurm", "--gpus", "-1"], "gpus is -1")])
def test_wrong_options_are_one_line(options, reason, tmp_path, capsys):
    assert main([*GRID, *options, "--out", str(tmp_path)], MODELS) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_a_missing_submitit_and_a_missing_slurm_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch there
    if importlib.util.find_spec("submitit"):
        assert main([*GRID, "--cluster", "slurm", "--out", str(tmp_path)], MODELS) == 2
        error = capsys.readouterr().err
        assert error.startswith("popup: --cluster slurm cannot submit: ") and error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main([*GRID, "--cluster", "local", "--out", str(tmp_path)], MODELS) == 2
    assert capsys.readouterr().err == ("popup: --cluster local needs a package that is not there: "
                                       "python -m pip install submitit\n")


def test_everything_finished_before_submits_nothing(tmp_path, capsys):
    grid = ["--epochs", "1", "--widths", "16", "--seeds", "2", "--controls", "none", "--out", str(tmp_path)]
    assert main([*grid, "--workers", "1"], MODELS) == 0
    assert main([*grid, "--cluster", "local"], MODELS) == 0
    assert "all finished before" in capsys.readouterr().out and not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(("options", "jobs"), [([], 3), (["--workers", "5"], 5)])
def test_jobs_of_this_machine_are_as_many_as_its_cores_are_for(options, jobs, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep_command, "submit", lambda laboratory, cluster, jobs, cells: asked.append(jobs) or ["1"] * jobs)
    monkeypatch.setattr(sweep, "usable_cores", lambda: 3)
    assert main([*GRID, "--cluster", "local", *options, "--out", str(tmp_path)], MODELS) == 0
    assert main([*GRID, "--cluster", "slurm", *options, "--out", str(tmp_path)], MODELS) == 0
    assert asked == [jobs, 5 if options else 8]


def test_options_of_a_cluster_are_in_no_record(tmp_path):
    assert main(["--epochs", "1", "--widths", "16", "--out", str(tmp_path)], MODELS) == 0
    record = json.loads(next(tmp_path.glob("*/config.json")).read_text())
    assert not {part.name for part in fields(Cluster)} & {name for group in record.values() for name in group}
    with pytest.raises(UsageError):
        Cluster(cluster="cloud")

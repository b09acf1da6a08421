"""What the system or a later version stands in the way of: one clear line, and what was written before is intact."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models import MODELS
from popup.errors import UsageError
from popup.files import write_atomically
from popup.lab.commands.command import COMMANDS, main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.stop import Stopped

ROOT = Path(__file__).parents[2]


def test_a_disk_that_fills_ends_the_run_with_one_line_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "run.py", "--epochs", "2", "--widths", "64", "--out", str(tmp_path), "--checkpoint-seconds", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def small():  # no file may grow beyond this: the checkpoint is the first that would
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(command, cwd=ROOT, preexec_fn=small, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    (place,) = tmp_path.iterdir()
    assert done.stderr == f"popup: {place}/checkpoint.safetensors: File too large\n"
    assert sorted(path.name for path in place.iterdir()) == [".lock", "config.json", "metrics.jsonl"]
    assert main(command[2:], MODELS) == 0 and (place / "result.json").exists()


def test_a_directory_that_vanishes_is_named(tmp_path, capsys, monkeypatch):
    laboratory, config = Laboratory(MODELS, Machine("cpu"), tmp_path / "runs"), Config.from_flat({"epochs": 3, "widths": (8,)})
    with pytest.raises(FileNotFoundError) as error:
        run(laboratory, config, lambda metrics: shutil.rmtree(tmp_path / "runs"))
    assert error.value.filename == str(laboratory.directory(config).path / "metrics.jsonl")


def test_an_atomic_write_that_fails_names_the_file_and_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed_when_the_run_goes_on(tmp_path):
    laboratory, config = Laboratory(MODELS, Machine("cpu"), tmp_path), Config.from_flat({"epochs": 1, "widths": (8,)})
    place = laboratory.directory(config).path
    place.mkdir()
    (place / ".checkpoint.safetensors.abc.part").write_bytes(b"half")
    (place / ".lock").write_bytes(b"")
    run(laboratory, config)
    assert not list(place.glob(".*.part")) and (place / ".lock").exists()


def test_a_config_of_a_later_version_is_refused_by_its_field(tmp_path, capsys):
    record = Config().record()
    record["training"]["sparkle"] = 1
    with pytest.raises(UsageError, match="the field 'sparkle', which this popup does not know: a later version wrote it"):
        Config.from_record(record)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    (tmp_path / "run" / "result.json").write_text("{}")
    assert main(["report", str(tmp_path)], MODELS) == 2
    error = capsys.readouterr().err
    assert "config.json" in error and "sparkle" in error and error.count("\n") == 1


def test_a_command_that_would_begin_anew_does_not_say_that_it_goes_on(capsys, monkeypatch):
    def stopped(arguments, models):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setitem(COMMANDS, "show", stopped)
    assert main(["show", "ticket"], MODELS) == 143 and capsys.readouterr().err == "popup: terminated\n"


def test_a_result_that_is_none_is_refused_with_one_line(tmp_path, capsys):
    grid = ["--epochs", "1", "--widths", "8", "--seeds", "2", "--controls", "none", "--out", str(tmp_path)]
    assert main([*grid, "--plan-only"], MODELS) == 0
    for path in tmp_path.iterdir():
        (path / "result.json").write_text("{}")
    assert main(["report", str(tmp_path)], MODELS) == 2
    error = capsys.readouterr().err
    assert "result.json is damaged: hash is missing" in error and error.count("\n") == 1


def test_an_empty_out_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--plan-only", "--out", ""], MODELS) == 2
    assert capsys.readouterr().err == "popup: out is '': name a directory, . for the one you are in\n"
    assert not os.listdir(tmp_path)

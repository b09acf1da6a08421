"""The commands of the tables in docs/: each one is read by popup as it stands, and a table is repeated by them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from models import MODELS
from popup.lab.commands.arguments import parse, parse_as
from popup.lab.commands.bench_command import BenchOptions
from popup.lab.commands.law_options import LawOptions
from popup.lab.commands.prove_options import ProveOptions
from popup.lab.commands.sweep_command import ReportOptions
from popup.lab.data.datasets import DATASETS

SCRIPT = Path(__file__).parents[1] / "docs/repeat.py"
SPEC = importlib.util.spec_from_file_location("repeat", SCRIPT)
repeat = importlib.util.module_from_spec(SPEC)
sys.modules["repeat"] = repeat
SPEC.loader.exec_module(repeat)
TABLES = list(repeat.tables())
OPTIONS = {"bench": BenchOptions, "law": LawOptions, "prove": ProveOptions, "report": ReportOptions}
SAID = "+ python run.py "


def said(script, where):
    """The arguments of each command that a script calls."""
    done = subprocess.run(["bash", "-c", script], cwd=where, capture_output=True, text=True, check=True)
    return [line.removeprefix(SAID).split() for line in done.stdout.splitlines() if line.startswith(SAID)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.folder)
def test_each_command_is_one_of_popups_as_it_stands(table, tmp_path):
    calls = said(table.script("true"), tmp_path)
    assert len(calls) >= table.commands.count("python run.py") - table.commands.count("=\"python run.py")
    for first, *rest in calls:
        if first in OPTIONS:
            parse_as(OPTIONS[first], rest, first)
        else:
            configs = parse([first, *rest], "", {"model": list(MODELS), "dataset": list(DATASETS)}).configs
            assert configs


def test_all_four_pages_have_tables():
    assert {table.page for table in TABLES} == set(repeat.PAGES)
    assert len({table.folder for table in TABLES}) == len(TABLES)


def call(*words, where):
    return subprocess.run([sys.executable, SCRIPT, *words], cwd=where, capture_output=True, text=True, check=False)


def test_without_a_name_all_are_listed_and_a_wrong_one_or_no_images_are_told_in_a_line(tmp_path):
    listed = call(where=tmp_path)
    assert listed.returncode == 0 and listed.stdout.splitlines() == [table.name for table in TABLES]
    wrong = call("no such table", where=tmp_path)
    assert wrong.returncode == 2 and "'no such table'" in wrong.stderr and "Traceback" not in wrong.stderr
    without = call("accuracy: A small ResNet", where=tmp_path)
    assert without.returncode == 2 and without.stderr.splitlines()[-1].endswith("add --cifar FOLDER")
    assert not list(tmp_path.iterdir())


MADE_UP = """# A page

## Right

    R="python run.py densities --model mlp"; $R --er-p 0.1 \\
        --widths 8 8
    python run.py eval nothing.safetensors || echo went on

Words.

    python run.py recipes

## Wrong

    python run.py densities --er-p 2
    python run.py recipes
"""


def test_a_tables_commands_are_run_where_they_are_told_to_and_the_first_that_is_refused_ends_it(tmp_path, monkeypatch, capfd):
    (tmp_path / "made-up.md").write_text(MADE_UP)
    monkeypatch.setattr(repeat, "PAGES", ("made-up",))
    monkeypatch.setattr(repeat, "HERE", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["repeat.py", "Right", "--out", "here"])
    assert repeat.main() == 0
    out = capfd.readouterr().out
    places = [out.index(part) for part in ("made-up: Right, into here/made-up/right/", f"{SAID}densities --model mlp --er-p 0.1 "
                                           "--widths 8 8\n", "went on", f"{SAID}recipes\n")]
    assert places == sorted(places) and (tmp_path / "here/made-up/right").is_dir()
    monkeypatch.setattr(sys, "argv", ["repeat.py", "Wrong"])
    assert repeat.main() == 2
    out, told = capfd.readouterr()
    assert "er_p is 2" in told and "recipes" not in out

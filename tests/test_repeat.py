"""The commands of the tables in docs/: each one is read by popup as it stands, and a table is repeated by them."""

import importlib.util
import signal
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


@pytest.mark.parametrize("name", ["", " "])
def test_no_words_are_no_name_of_all_tables(name, tmp_path):
    """They would be days of work."""
    done = call(name, where=tmp_path)
    assert done.returncode == 2 and "no table has" in done.stderr.splitlines()[-1] and not list(tmp_path.iterdir())


def test_words_are_found_whatever_their_case_and_without_what_a_shell_would_take_for_its_own():
    tickets = [table for table in TABLES if table.has("methods: locked EDGES at equal search space (frozen)")]
    assert [table.heading for table in tickets] == ["Locked edges at equal search space (`frozen`)"]


def test_images_that_are_not_there_or_that_a_shell_would_take_apart_are_told_before_anything_runs(tmp_path):
    for side in ("train", "test"):
        (tmp_path / "my images" / side).mkdir(parents=True)
    (tmp_path / "half/train").mkdir(parents=True)
    for folder, said in (("none", "there is no folder"), ("half", "/test'"), ("my images", "a shell would take apart")):
        done = call("accuracy: A small ResNet", "--cifar", str(tmp_path / folder), where=tmp_path)
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (tmp_path / "repeated").exists()


def test_a_place_where_nothing_can_be_written_is_told_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    done = call("methods: Digits", "--out", "file", where=tmp_path)
    assert done.returncode == 2 and "name another --out" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


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

## Missed

    R="python run.py"; for code in 1 0 1; do $R $code; done

## Missed, and after it

    python run.py 0
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A page of its own; call it with the command line."""
    (tmp_path / "made-up.md").write_text(MADE_UP)
    monkeypatch.setattr(repeat, "PAGES", ("made-up",))
    monkeypatch.setattr(repeat, "HERE", tmp_path)
    monkeypatch.chdir(tmp_path)

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["repeat.py", *words])
        return repeat.main()

    return called


def test_a_tables_commands_are_run_where_they_are_told_to_and_the_first_that_is_refused_ends_it(tmp_path, made_up, capfd):
    assert made_up("Right", "--out", "here") == 0
    out = capfd.readouterr().out
    places = [out.index(part) for part in ("made-up: Right, into here/made-up/right/", f"{SAID}densities --model mlp --er-p 0.1 "
                                           "--widths 8 8\n", "went on", f"{SAID}recipes\n")]
    assert places == sorted(places) and (tmp_path / "here/made-up/right").is_dir()
    assert made_up("Wrong") == 2
    out, told = capfd.readouterr()
    assert "er_p is 2" in told and "recipes" not in out
    assert told.splitlines()[-1] == "repeat: made-up: Wrong: a command ended with 2; the same call goes on from here"


STAND_IN = """import os, sys, time
print("it is", os.getpid(), flush=True)
if sys.argv[1] != "wait":
    sys.exit(int(sys.argv[1]))
time.sleep(60)
"""


def test_a_run_that_failed_ends_nothing_and_is_told_in_the_end(tmp_path, made_up, monkeypatch, capfd):
    (tmp_path / "run.py").write_text(STAND_IN)
    monkeypatch.setattr(repeat, "RUN", tmp_path / "run.py")
    assert made_up("missed") == 1
    out = capfd.readouterr().out
    assert out.count("it is") == 4 and "ended with 1, as a run failed or a promise was missed: 2 of these commands\n" in out
    assert made_up("missed, and after") == 0


@pytest.mark.parametrize(("number", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_what_asks_it_to_end_reaches_the_run_and_is_told_in_a_line(number, code, how, tmp_path):
    """The signal is sent to the one process, as a scheduler does; a run that goes on alone would write beside the next call's."""
    (tmp_path / "run.py").write_text(STAND_IN)
    (tmp_path / "made-up.md").write_text("# A page\n\n## Long\n\n    python run.py wait || true\n    python run.py 0\n")
    driver = (f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import repeat; from pathlib import Path; "
              f"repeat.HERE, repeat.PAGES, repeat.RUN = Path('.'), ('made-up',), Path('run.py').resolve(); "
              "sys.argv = ['repeat.py', 'long']; sys.exit(repeat.main())")

    def as_in_a_terminal():
        """What a shell starts with & ignores interrupts, and so does all that it starts: these tests too, it may be."""
        signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen([sys.executable, "-c", driver], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, preexec_fn=as_in_a_terminal) as process:
        pid = int(next(line for line in process.stdout if line.startswith("it is")).split()[-1])
        process.send_signal(number)
        out, told = process.communicate(timeout=60)
    assert process.returncode == code and "it is" not in out
    assert told.splitlines()[-1] == f"repeat: made-up: Long: {how}; the same call goes on from here"
    assert "repeat.py" not in told and not Path(f"/proc/{pid}").exists()

"""The README keeps its word: its commands are the ones that CI runs, its example runs, its files and pictures exist."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_two_commands_come_first_and_ci_calls_the_second():
    commands = re.findall(r"^    (.+)$", README, flags=re.MULTILINE)[:2]
    assert commands[0].endswith("run.py --er-p 0.2 --k 0.5")
    assert "-m pytest" in commands[1]
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install") for command in commands)
    call = subprocess.run(["bash", "-c", "grep -m1 'python -m pytest' README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert call.stdout.strip() == commands[1]
    assert "grep -m1 'python -m pytest' README.md" in (ROOT / ".ci/run").read_text()


def test_the_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 2
    weights = dict(names["plain"].named_parameters())
    for row in names["popup"].densities(names["net"]):
        assert int((weights[row.name] != 0).sum()) == row.kept


def test_linked_files_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target

"""The README keeps its word: its commands are the ones that CI runs, its example runs, its files and pictures exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_two_commands_come_first_and_ci_calls_the_second():
    commands = re.findall(r"^    (.+)$", README, flags=re.MULTILINE)[:2]
    assert commands[0].endswith("run.py --er-p 0.2 --k 0.5")
    assert "-m pytest" in commands[1]
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install") for command in commands)
    line = ["bash", "-c", "grep -m1 'python -m pytest' README.md"]
    call = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert call.stdout.strip() == commands[1]
    assert "grep -m1 'python -m pytest' README.md" in (ROOT / ".ci/run").read_text()


def test_the_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = PYTHON[0]
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 2
    weights = dict(names["plain"].named_parameters())
    for row in names["popup"].densities(names["net"]):
        assert int((weights[row.name] != 0).sum()) == row.kept


def test_a_method_of_ones_own_is_the_file_and_the_line_that_it_says(tmp_path):
    for part in ("popup", "models", "run.py", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    methods = tmp_path / "popup/search/methods"
    (methods / "noisy.py").write_text(PYTHON[1])
    registry, first = methods / "__init__.py", "METHODS: dict[str, type[Method]] = {\n"
    assert first in registry.read_text()
    registry.write_text("from popup.search.methods.noisy import Noisy\n" + registry.read_text().replace(first, first + PYTHON[2]))
    run = subprocess.run([sys.executable, "run.py", "--method", "noisy", "edge_popup", "--epochs", "1", "--widths", "16",
                          "--workers", "1", "--controls", "none"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "noisy" in run.stdout and "edge_popup" in run.stdout
    tickets = list((tmp_path / "runs").rglob("ticket.safetensors"))
    assert len(tickets) == 2 and tickets[0].read_bytes() != tickets[1].read_bytes()
    laws = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_laws.py", "-k",
                           "noisy and (mlp or some)"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert laws.returncode == 0 and " passed" in laws.stdout, laws.stdout


def test_linked_files_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target

"""The README keeps its word: its commands are the ones that CI runs, its example runs, its files and pictures exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from popup import UsageError, attach
from popup.search.methods import METHODS
from popup.source import books

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
OWN = (ROOT / "docs/own-method.md").read_text(encoding="utf-8")


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


def test_the_page_on_ones_own_network_is_the_file_and_the_command_that_it_says(tmp_path):
    page = (ROOT / "docs/own-network.md").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)[1])
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    lines = [",".join(f"{number:.4f}" for number in row) + f",{int(row.sum() > 0)}" for row in rows]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    command = re.search(r"^    python (run.py .*)$", page, flags=re.MULTILINE)[1]
    assert command in README
    quick = ["--epochs", "1", "--controls", "none", "--workers", "1"]
    run = subprocess.run([sys.executable, ROOT / "run.py", *command.split()[1:], *quick], cwd=tmp_path, capture_output=True,
                         text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "9 finished" in run.stdout and (tmp_path / "runs/report.html").is_file()


def test_the_page_about_methods_shows_the_code_as_it_is_and_what_is_said_of_a_wrong_one(monkeypatch):
    book, signed, wrong = re.findall(r"```python\n(.*?)```", OWN, flags=re.DOTALL)
    assert book in (ROOT / "popup/source/books.py").read_text() and eval(book.partition("=")[2], vars(books)) == books.SIGNED
    assert (ROOT / "popup/search/methods/signed.py").read_text().endswith(f"\n\n\n{signed}")
    names = {}
    exec(compile(wrong, "own-method.md", "exec"), names)
    monkeypatch.setitem(METHODS, "turned", names["Turned"])
    with pytest.raises(UsageError) as error:
        attach(torch.nn.Linear(4, 4), er_p=0.5, method="turned")
    assert str(error.value) == " ".join(re.search(r"```text\n(.*?)```", OWN, flags=re.DOTALL)[1].split())


def headings(page):
    """Of a page, as links name them: words in small letters joined by hyphens, without other marks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_linked_files_pictures_and_headings_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text)
    assert targets or page != "README.md"
    for name, heading in targets:
        if not name.startswith("http"):
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.exists(), name
            assert not heading or heading in headings(target), f"{name}#{heading}"

"""docs/CONTRIBUTING.md keeps its word: each addition is what it says and nothing else, done here in a copy."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/CONTRIBUTING.md").read_text(encoding="utf-8")
DENSITY, NOISY, LINE, HEAVY, MODEL, DATA = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def insert(path, before, new, imports=""):
    """Write `new` after the one place in the file where `before` stands."""
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(imports + text.replace(before, before + new))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """popup with all of the page's additions."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("popup", "models", "run.py", "tests", "docs", "pyproject.toml"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
    densities = folder / "popup/source/densities.py"
    line = re.search(r"one line: `(.*?)`", PAGE)[1]
    densities.write_text(f"{densities.read_text()}\n\n{DENSITY}\n\n{line}\n")
    methods = folder / "popup/search/methods"
    (methods / "noisy.py").write_text(NOISY)
    (methods / "heavy.py").write_text(HEAVY)
    insert(methods / "__init__.py", "METHODS: dict[str, type[Method]] = {\n", LINE + LINE.replace("noisy", "heavy").replace(
        "Noisy", "Heavy"), "from popup.search.methods.heavy import Heavy\nfrom popup.search.methods.noisy import Noisy\n")
    (folder / "models/deep.py").write_text(MODEL)
    insert(folder / "models/__init__.py", "for builder in (\n", "    deep,\n", "from .deep import deep\n")
    (folder / "popup/lab/data/odd_digits.py").write_text(DATA)
    datasets = folder / "popup/lab/data/datasets.py"
    insert(datasets, "DATASETS: dict[str, Callable[[DataRequest], Dataset]] = {\n", '    "odd_digits": odd_digits,\n')
    insert(datasets, "from __future__ import annotations\n", "\nfrom popup.lab.data.odd_digits import odd_digits\n")
    return folder


def python(copy, *arguments):
    """A Python command in the copy."""
    return subprocess.run([sys.executable, *arguments], cwd=copy, capture_output=True, text=True, check=False)


def test_a_sweep_knows_all_of_them(copy):
    run = python(copy, "run.py", "--dataset", "odd_digits", "--model", "deep", "--density", "narrow", "erk", "--method", "noisy",
                 "heavy", "--epochs", "1", "--width", "0.25", "--workers", "1", "--controls", "none")
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("noisy", "heavy", "narrow", "erk"))
    tickets = list((copy / "runs").rglob("ticket.safetensors"))
    assert len({ticket.read_bytes() for ticket in tickets}) == len(tickets) == 4
    assert sum(b"codes/1.weight" in ticket.read_bytes() for ticket in tickets) == 2  # heavy's: more than two codes
    verified = python(copy, "run.py", "verify", str(tickets[0]))
    assert verified.returncode == 0, verified.stdout + verified.stderr


TAKEN = {"tests/test_laws.py": "(noisy or heavy or narrow) and (mlp or some)", "tests/models/": "deep or table or every",
         "tests/source/test_densities.py": "narrow or every", "tests/lab/test_bad_input.py": "foo",
         "tests/test_imports.py": "odd_digits or deep or noisy or heavy or ring"}


def test_the_tests_take_them_from_the_registries(copy):
    """In one process: each takes seconds to start."""
    chosen = " or ".join(f"({Path(where).stem} and ({words}))" for where, words in TAKEN.items())
    done = python(copy, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *TAKEN, "-k", chosen)
    assert done.returncode == 0, done.stdout
    for where in TAKEN:
        assert f"\nPASSED {where}" in done.stdout, where

"""The API reference, made from the docstrings by the command in docs/CONTRIBUTING.md: no warning, and every public name."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import popup

ROOT = Path(__file__).parents[1]
COMMAND = re.search(r"`python (-m pdoc .*?)`", (ROOT / "docs/CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL)[1]


def test_the_reference_is_made_without_a_warning_and_has_every_public_name(tmp_path):
    pytest.importorskip("pdoc")
    *modules, where, _ = shlex.split(COMMAND)
    done = subprocess.run([sys.executable, *modules, where, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Warn" not in done.stderr, done.stderr
    page = (tmp_path / "popup.html").read_text(encoding="utf-8")
    assert [name for name in popup.__all__ if f'id="{name}"' not in page and name != "__version__"] == []
    for module in modules[2:]:
        assert (tmp_path / f"{module.replace('.', '/')}.html").is_file(), module


@pytest.mark.parametrize("name", sorted(set(popup.__all__) - {"__version__"}))
def test_a_public_name_says_what_it_is(name):
    told = inspect.getdoc(getattr(popup, name)) or ""
    assert told and not told.startswith(f"{name}("), told  # which a dataclass without words of its own has

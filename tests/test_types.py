"""What mypy says: nothing of popup, and of a script of a user's its mistakes alone."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """\
import torch

import popup

net = popup.attach(torch.nn.Sequential(torch.nn.Linear(4, 2)), er_p="0.5", k=0.5)
popup.attach(torch.nn.Linear(4, 2), popup.Recipe(er_p=0.5), popup.SearchSettings(method="signed"), compute="dense")
optimizer = torch.optim.SGD(popup.scores(net), lr=0.1)
popup.extract(net).save("ticket.safetensors")
plain: torch.nn.Module = popup.load("ticket.safetensors").apply(torch.nn.Linear(4, 2), spares=True)
print(popup.summary(net), popup.compare(popup.extract(net), popup.load("ticket.safetensors")))
"""
WRONG = {5: "er_p", 9: "spares"}


def mypy(*arguments, **options):
    """Mypy's exit code and lines. The cache is the checkout's, for both looks and for who calls mypy by hand."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir",
               str(ROOT / ".mypy_cache"), "--no-error-summary", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def with_popup(folder, installed):
    """A new environment in `folder` that has this one's packages, and popup as it is `installed`; returns its Python."""
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/*/site-packages"))
    (site / "all.pth").write_text("".join(f"{path}\n" for path in (installed, *sys.path) if Path(path).name == "site-packages"
                                          or path == installed))
    return folder / "bin" / "python"


def test_mypy_finds_nothing_in_popup_and_the_two_mistakes_in_a_script(tmp_path, installed):
    pytest.importorskip("mypy")
    assert mypy(cwd=ROOT) == (0, [])
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    code, said = mypy("--python-executable", str(with_popup(tmp_path / "env", installed)), script.name, cwd=tmp_path,
                      env={name: value for name, value in os.environ.items() if name != "MYPYPATH"})
    found = {int(line.split(":")[1]): line for line in said if ": error: " in line}
    assert code == 1 and found.keys() == WRONG.keys(), said
    assert all(word in found[line] for line, word in WRONG.items())

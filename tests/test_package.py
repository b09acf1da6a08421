"""What is installed: popup, and the named models under a name that no module of a user's has."""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
setuptools = pytest.importorskip("setuptools", minversion="77")  # the first that reads what pyproject.toml says of the license


def packages():
    """Every folder with code, as it is called where popup is installed."""
    found = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "popup").rglob("*.py")}
    return found | {"popup_command", "popup_command.models"}


def test_every_folder_is_in_the_package():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages()


def test_what_is_optional_has_one_lower_bound():
    wanted = set((ROOT / "tests" / "requirements.txt").read_text().split())
    extras = PROJECT["project"]["optional-dependencies"]
    assert {line for name in extras if name != "timm" for line in extras[name]} <= wanted


CALLS = """
import contextlib, io, json, sys
from {module} import {name}
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            code = {name}()
        except SystemExit as end:
            code = end.code or 0
    answers.append((code, out.getvalue(), told.getvalue()))
print(json.dumps(answers))
"""


def call(installed, *commands):
    """What the function of the entry point gives, prints and tells, in one process for all commands, from a folder that is not
    the checkout."""
    module, name = PROJECT["project"]["scripts"]["popup"].split(":")
    done = subprocess.run([sys.executable, "-P", "-c", CALLS.format(module=module, name=name), json.dumps(commands)],
                          cwd=installed / "elsewhere", capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_else_is_at_its_top(installed):
    found = {path.name for path in installed.iterdir()} - {"elsewhere"}
    assert {name.partition("-")[0] for name in found} == {"popup", "popup_command"}
    assert (installed / "popup" / "py.typed").is_file()


def test_the_command_finds_its_models_and_the_users(installed):
    run, recipes = call(installed, ["--epochs", "1", "--er-p", "0.2", "--model", "models:build", "--threads", "1"], ["recipes"])
    assert run[0] == 0, run
    assert (installed / "elsewhere" / "runs").is_dir()
    assert recipes[0] == 0 and "mlp_digits" in recipes[1]


def test_it_calls_itself_as_it_is_called(installed):
    """Where there is no run.py no text names one."""
    answers = call(installed, ["--help"], ["worker", "--help"], ["--plan-only", "--k", "0.3", "0.5", "--out", "planned"],
                   ["worker", "nowhere"])
    assert [code for code, _, _ in answers] == [0, 0, 0, 2] and (installed / "elsewhere" / "planned").is_dir()
    said = [out for _, out, _ in answers]
    assert "popup --er-p 0.2" in said[0] and said[1].startswith("usage: popup worker DIR") and "popup worker planned" in said[2]
    assert not any("run.py" in text for answer in answers for text in answer[1:])


def test_the_version_stands_in_one_place(installed):
    version = next(installed.glob("popup-*.dist-info")).name.removeprefix("popup-").removesuffix(".dist-info")
    assert f'VERSION = "{version}"' in (ROOT / "popup" / "version.py").read_text()


def test_models_know_one_another_by_no_absolute_name(monkeypatch):
    spec = importlib.util.spec_from_file_location("other_name", ROOT / "models" / "__init__.py",
                                                  submodule_search_locations=[str(ROOT / "models")])
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "other_name", module)
    monkeypatch.setitem(sys.modules, "models", None)
    spec.loader.exec_module(module)
    assert "mlp" in module.MODELS

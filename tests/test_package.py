"""What is installed: popup, and the named models under a name that no module of a user's has."""

import importlib.util
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


def call(installed, *arguments):
    """The command of the entry point, from a folder that is not the checkout."""
    module, name = PROJECT["project"]["scripts"]["popup"].split(":")
    code = f"import sys; from {module} import {name}; sys.exit({name}())"
    return subprocess.run([sys.executable, "-P", "-c", code, *arguments], cwd=installed / "elsewhere", capture_output=True,
                          text=True, check=False, env={**os.environ, "PYTHONPATH": str(installed)})


def test_nothing_else_is_at_its_top(installed):
    found = {path.name for path in installed.iterdir()} - {"elsewhere"}
    assert {name.partition("-")[0] for name in found} == {"popup", "popup_command"}
    assert (installed / "popup" / "py.typed").is_file()


def test_the_command_finds_its_models_and_the_users(installed):
    done = call(installed, "--epochs", "1", "--er-p", "0.2", "--model", "models:build", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert (installed / "elsewhere" / "runs").is_dir()
    done = call(installed, "recipes")
    assert done.returncode == 0 and "mlp_digits" in done.stdout


def test_it_calls_itself_as_it_is_called(installed):
    """Where there is no run.py no text names one."""
    said = [call(installed, *words).stdout for words in (["--help"], ["worker", "--help"], [
        "--plan-only", "--k", "0.3", "0.5", "--out", "planned"])]
    said.append((installed / "elsewhere").joinpath("planned").is_dir() and call(installed, "worker", "nowhere").stderr)
    assert "popup --er-p 0.2" in said[0] and said[1].startswith("usage: popup worker DIR") and "popup worker planned" in said[2]
    assert not any("run.py" in text for text in said)


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

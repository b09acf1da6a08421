"""The rooms import downwards only: products, source < search < ticket < theory < lab, and so do the folders of lab.

Walks the syntax tree of every file, so that relative imports, imports inside functions and `import_module("...")` count.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE = {"popup.errors", "popup.files", "popup.version"}
ROOMS = ["products", "source", "search", "ticket", "lab", "theory"]
KNOWS = {  # besides itself and the base
    "products": set(), "source": set(), "search": {"products", "source"}, "ticket": {"source", "search"},
    "lab": {"products", "source", "search", "ticket", "theory"},
    "theory": {"source", "ticket"}, "base": set(), "models": set(),
    "front": {"source", "search", "ticket", "lab", "theory"},
    "run": {"front", "models", "source", "search", "ticket", "lab", "theory"}}


def files():
    """Every Python file of the project but the tests."""
    return sorted([ROOT / "run.py", *(ROOT / "popup").rglob("*.py"), *(ROOT / "models").rglob("*.py")])


def module_of(path):
    """The dotted name of a file: popup/source/__init__.py is popup.source."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    """The room of a dotted name; `front` for popup/__init__.py, None for what is not the project's."""
    head, *rest = module.split(".")
    if head in ("models", "run", "tests"):
        return head
    if head != "popup":
        return None
    if ".".join(["popup", *rest[:1]]) in BASE:
        return "base"
    return rest[0] if rest and rest[0] in ROOMS else "front"


def imports(tree, module, is_package):
    """(line, dotted name) of everything that a file imports, names imported from a package included."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            yield from ((node.lineno, argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def _called(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def wrong_imports(source, module, is_package=False):
    """What a file of that name must not import."""
    here = room_of(module)
    allowed = KNOWS[here] | {here, "base", None}
    return [f"line {line}: {name}" for line, name in imports(ast.parse(source), module, is_package)
            if room_of(name) not in allowed]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_downwards_only(path):
    assert wrong_imports(path.read_text(), module_of(path), path.name == "__init__.py") == []


LAB = ["data", "training", "bench", "runs", "report", "commands"]  # a folder of lab knows those before it, and lab's own files


def folder_of(module):
    """The folder of lab that a dotted name lies in, or None."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["popup", "lab"] and len(parts) > 2 and parts[2] in LAB else None


@pytest.mark.parametrize("path", sorted((ROOT / "popup" / "lab").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_of_lab_import_downwards_only(path):
    module = module_of(path)
    here = LAB.index(folder_of(module)) if folder_of(module) else 0
    found = imports(ast.parse(path.read_text()), module, path.name == "__init__.py")
    assert [(line, name) for line, name in found if folder_of(name) and LAB.index(folder_of(name)) > here] == []


def test_every_folder_of_lab_has_its_place():
    assert {path.name for path in (ROOT / "popup" / "lab").iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LAB)


def test_every_folder_of_popup_is_a_room_and_every_file_beside_them_base():
    folders = {path.name for path in (ROOT / "popup").iterdir() if path.is_dir() and path.name != "__pycache__"}
    beside = {module_of(path) for path in (ROOT / "popup").glob("*.py")}
    assert folders <= set(ROOMS) and beside == BASE | {"popup", "popup.callbacks"}


def test_no_room_is_below_itself():
    """The table is a hierarchy: following it downwards ends."""
    def below(room, path=()):
        assert room not in path, f"a cycle: {path}"
        for other in KNOWS[room]:
            below(other, (*path, room))

    for room in KNOWS:
        below(room)


@pytest.mark.parametrize(("module", "text"), [
    ("popup.source.masks", "from popup.search import attach"), ("popup.source.masks", "import popup.lab.config"),
    ("popup.source.masks", "from ..ticket import extract"), ("popup.source.masks", "from .. import lab"),
    ("popup.source.masks", "def f():\n    from popup.search.select import top"),
    ("popup.source.masks", "if TYPE_CHECKING:\n    import popup.search as s"),
    ("popup.source.masks", "importlib.import_module('popup.lab')"), ("popup.source.masks", "__import__('models')"),
    ("popup.source.masks", "import popup"), ("popup.source.masks", "from popup import attach"),
    ("popup.search.attach", "from popup.ticket.hashes import hash_array"),
    ("popup.ticket.file", "from popup.lab.runs import flow"),
    ("popup.theory.sums", "from popup.lab import config"), ("popup.lab.runs.flow", "import models"),
    ("popup.lab.runs.flow", "from models.mlp import mlp"), ("popup.lab.runs.flow", "import run"), ("models.mlp", "import popup"),
    ("models.mlp", "from popup.source import Layer"), ("popup.errors", "from popup.source import Layer"),
    ("popup.files", "import popup.lab"), ("popup.lab.runs.flow", "from tests import conftest")])
def test_the_walk_sees_each_kind_of_wrong_import(module, text):
    assert len(wrong_imports(text, module)) == 1


@pytest.mark.parametrize(("module", "text"), [
    ("popup.search.attach", "from popup.source.layers import locate"),
    ("popup.ticket.proof", "from ..search.attach import merge"), ("popup.theory.sums", "from popup.ticket import Ticket"),
    ("popup.source.masks", "from . import streams"), ("popup.source.masks", "from popup import errors"),
    ("popup.lab.runs.flow", "import popup.files, torch, numpy as np"), ("models.mlp", "from models import conv"),
    ("run", "import models, popup, popup.lab.runs.flow")])
def test_the_walk_lets_right_imports_pass(module, text):
    assert wrong_imports(text, module) == []


SLOW = {"matplotlib", "numba", "sklearn", "submitit", "timm", "torchvision", "transformers", "scipy.optimize", "scipy.sparse",
        "scipy.stats", "torch._dynamo", "torch.utils.tensorboard"}  # every command would wait for them
COMPILED = ("popup.products.choice", "popup.products.compiled", "popup.products.vectors")  # numba's own


def slow_imports(source, module):
    """What a file imports as soon as it is imported that takes long, of the outside libraries."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for _, name in imports(ast.Module(nodes, []), module, False)} if nodes else set()
    return sorted(name for name in names if any(f"{name}.".startswith(f"{slow}.") for slow in SLOW))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_takes_long_is_imported_where_it_is_used(path):
    assert module_of(path) in COMPILED or slow_imports(path.read_text(), module_of(path)) == []


@pytest.mark.parametrize("text", ["from scipy.stats import binom", "import scipy.stats as s", "from scipy import optimize",
                                  "import matplotlib.pyplot", "from torch import _dynamo"])
def test_the_walk_sees_slow_imports(text):
    assert slow_imports(text, "popup.source.masks") and not slow_imports(f"def late():\n    {text}", "popup.source.masks")


def graph():
    """Each module of popup with the modules of popup that it imports, type hints included."""
    names = {module_of(path): path for path in files()}
    found = {}
    for name, path in names.items():
        wanted = imports(ast.parse(path.read_text()), name, path.name == "__init__.py")
        known = (next((part for part in (other, other.rpartition(".")[0]) if part in names), name) for _, other in wanted)
        found[name] = set(known) - {name}
    return found


def ring_in(edges):
    """Some modules that import one another in a ring; none if there is no ring."""
    free = dict(edges)
    while leaves := [name for name, others in free.items() if not others & free.keys()]:
        for name in leaves:
            del free[name]
    return sorted(free)


def test_no_modules_import_one_another_in_a_ring():
    edges = graph()
    assert len(edges) > 100 and edges["popup.search.settings"] >= {"popup.search.methods"} and ring_in(edges) == []


def test_the_walk_sees_a_ring():
    assert ring_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == ["a", "b", "c", "d"]

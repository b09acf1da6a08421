"""Functions of the user's that change, draw, share, end or fail: no run is of two networks, and what is wrong is one line."""

import json
from pathlib import Path

import pytest
import torch

import popup
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.identity import whatever_the_seed
from popup.lab.machine import Machine
from popup.lab.runs.checks import settled
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.stop import Stopped

QUICK = ["--dataset", "mine:load", "--model", "mine:build", "--batch-size", "16", "--epochs", "2", "--er-p", "0.5", "--out",
         "runs"]
BUFFER = """
class Projected(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("projection", {drawn}, persistent=False)
        self.inner, self.outer = nn.Linear(12, 16), nn.Linear(16, classes)
    def forward(self, x):
        return self.outer(torch.relu(self.inner(x * self.projection)))

def build(image, classes):
    return Projected(classes)
"""


def refused(capsys, *arguments):
    """The one line of a command that refuses."""
    capsys.readouterr()
    assert main([*arguments], MODELS) == 2
    line, = capsys.readouterr().err.splitlines()
    return line


def results(place="runs"):
    return [json.loads(path.read_text()) for path in sorted(Path(place).glob("*/result.json"))]


def test_a_search_does_not_go_on_under_a_function_that_builds_another_network_now(mine, capsys, stop_at):
    config = Config.from_flat({"dataset": "mine:load", "model": "mine:build", "batch_size": 16, "epochs": 2, "er_p": 0.5})
    laboratory = Laboratory(MODELS, Machine("cpu"), Path("runs"), stop_at(5))
    with pytest.raises(Stopped):
        run(laboratory, settled(laboratory, config))
    (checkpoint,) = Path("runs").glob("*/checkpoint.safetensors")
    mine(old="nn.ReLU()", new="nn.Tanh()")
    line = refused(capsys, *QUICK)
    assert f"{checkpoint} is of a run of another network than there is now, by its class, inplace (" in line
    assert line.endswith("remove it to begin the run anew")
    mine(text="# other words\n")
    assert main(QUICK, MODELS) == 0 and not checkpoint.exists()
    one = next(Path("runs").glob("*/ticket.safetensors")).read_bytes()
    assert main([*QUICK[:-1], "whole"], MODELS) == 0
    assert next(Path("whole").glob("*/ticket.safetensors")).read_bytes() == one


@pytest.mark.parametrize(("old", "new", "said"), [
    ("nn.ReLU()", "nn.Tanh()", "another network than mine:build builds now"),
    ("manual_seed(seed)", "manual_seed(seed + 7)", "other images than mine:load has now")])
def test_a_worker_does_not_do_the_rest_of_a_plan_on_something_else(old, new, said, mine, capsys):
    assert main([*QUICK, "--seeds", "2", "--controls", "none", "--workers", "1"], MODELS) == 0
    assert main([*QUICK, "--seeds", "2", "--controls", "random", "--plan-only"], MODELS) == 0
    mine(old=old, new=new)
    line = refused(capsys, "worker", "runs", "--trust")
    assert "2 finished runs in runs" in line and said in line and len(results()) == 2
    mine()
    assert main(["worker", "runs", "--trust"], MODELS) == 0 and len(results()) == 4
    mine(old=old, new=new)
    assert main(["worker", "runs", "--trust"], MODELS) == 0, "nothing is left to do on anything"


def test_a_report_tells_of_seeds_that_had_different_networks(mine, capsys):
    assert main(QUICK, MODELS) == 0
    mine(old="nn.ReLU()", new="nn.Tanh()")
    assert main([*QUICK, "--seed", "1"], MODELS) == 0
    capsys.readouterr()
    assert main(["report", "runs"], MODELS) == 0
    assert "not of the same network: runs of mine:build had 2 different versions of it (1 and 1 runs)" in " ".join(
        capsys.readouterr().out.split())


SHARED = {"the same network": "net = build(0, 2)\ndef build(image, classes): return net\n",
          "networks that share 0": "inner = nn.Linear(12, 16)\n"
                                   "def build(image, classes): return nn.Sequential(inner, nn.ReLU(), nn.Linear(16, classes))\n",
          "networks that share 0.weight": "weight = nn.Parameter(torch.ones(2, 12))\n"
                                          "def build(image, classes):\n    net = nn.Sequential(nn.Linear(12, 2))\n"
                                          "    net[0].weight = weight\n    return net\n"}


@pytest.mark.parametrize("grid", [[], ["--seeds", "2", "--controls", "none", "--workers", "1"]])
@pytest.mark.parametrize("what", SHARED)
def test_a_function_that_returns_the_same_modules_again_is_refused_before_a_run(what, grid, mine, capsys):
    mine(SHARED[what])
    line = refused(capsys, *QUICK, *grid)
    assert f"model 'mine:build' returns {what} at each call" in line and "copy.deepcopy" in line and not results()
    assert not list(Path().glob("runs/*/ticket.safetensors"))
    text = SHARED[what]
    for before, name in (("return ", "net"), ("Sequential(", "inner"), ("[0].weight = ", "weight")):
        text = text.replace(before + name, f"{before}__import__('copy').deepcopy({name})")
    mine(text)
    assert main([*QUICK, *grid], MODELS) == 0


@pytest.mark.parametrize("drawn", ["np.random.randint(10, 40)", "int(torch.randint(10, 40, ()))", "random.randint(10, 40)"])
def test_a_network_may_be_drawn_by_the_seed(drawn, mine):
    text = (f"import random\ndef build(image, classes):\n    w = {drawn}\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(12, w), nn.ReLU(), nn.Linear(w, classes))\n")
    before = torch.random.get_rng_state()
    for out in ("one", "two"):
        mine(text)
        assert main([*QUICK[:-1], out], MODELS) == 0
    assert results("one")[0]["proof"]["holds"] and torch.equal(before, torch.random.get_rng_state())
    tickets = [next(Path(out).glob("*/ticket.safetensors")) for out in ("one", "two")]
    assert tickets[0].read_bytes() == tickets[1].read_bytes()
    assert main(["eval", str(tickets[0]), "--model", "mine:build", "--dataset", "mine:load"], MODELS) == 0
    command = ["densities", "--model", "mine:build", "--image", "1", "3", "4", "--classes", "2", "--er-p", "0.5"]
    assert main([*command, "--density", "uniform", "--out", "spread"], MODELS) == 0
    assert [row["edges"] for row in json.loads(Path("spread/densities.json").read_text())["uniform"]] == [
        row["edges"] for row in results("one")[0]["layers"]]


def test_a_network_that_no_seed_repeats_is_refused_before_a_run(mine, capsys):
    mine("random = np.random.default_rng()\ndef build(image, classes):\n    w = int(random.integers(10, 1 << 20))\n"
         "    return nn.Sequential(nn.Linear(12, w), nn.ReLU(), nn.Linear(w, classes))\n")
    line = refused(capsys, *QUICK)
    assert "model 'mine:build' builds another network at each call" in line and "generator, which popup seeds" in line


def test_a_fixed_projection_that_the_state_leaves_out_is_repeated_by_eval(mine, capsys):
    mine(BUFFER.format(drawn="torch.rand(12)"))
    assert main(QUICK, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    for _ in range(2):
        capsys.readouterr()
        assert main(["eval", str(ticket), "--model", "mine:build", "--dataset", "mine:load"], MODELS) == 0
        assert "repeated exactly" in capsys.readouterr().out
    assert main(["verify", str(ticket), "--model", "mine:build"], MODELS) == 0


def test_a_buffer_that_neither_seed_nor_state_repeats_is_refused_before_a_run(mine, capsys):
    text = BUFFER.format(drawn="torch.tensor(np.random.default_rng().normal(size=12)).float()")
    mine(text)
    line = refused(capsys, *QUICK)
    assert "the buffer projection of model 'mine:build' is another at each call" in line and "persistent=False" in line
    mine(text.replace("x * self.projection", "x"))  # as memory that is never read may hold anything
    assert main([*QUICK[:-1], "unread"], MODELS) == 0
    mine(text.replace(", persistent=False", ""))
    assert main(QUICK, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    assert main(["eval", str(ticket), "--model", "mine:build", "--dataset", "mine:load"], MODELS) == 0


SPLITS = "(part(64, 0), part(32, 1))"
DATA = {  # what a function does, and what is said; nothing: it runs
    f"layer = nn.Linear(12, 12)\ndef load():\n    return [(layer(images), labels) for images, labels in {SPLITS}]\n": "",
    f"def load():\n    return Dataset('t', 2, *((x.numpy(), y.numpy()) for x, y in {SPLITS}))\n": "",
    f"def load():\n    return Dataset('t', 5, *{SPLITS}, names=tuple('abc'))\n": "3 names are given for 5 classes",
    f"def load():\n    return Dataset('t', 5, *{SPLITS}, names=tuple('abcde'))\n": "",
    "def load():\n    open('none.csv')\n": "cannot be loaded by its function: FileNotFoundError: [Errno 2] No such file",
    "def load():\n    raise SystemExit(3)\n": "'mine:load' cannot be loaded by its function: SystemExit: 3",
    "def build(image, classes):\n    raise SystemExit(3)\n": "cannot be built for features [12]: SystemExit: 3",
    "def build(image, classes):\n    open('none.pt')\n": "cannot be built for features [12]: FileNotFoundError: [Errno 2] No"}


@pytest.mark.parametrize("text", DATA)
def test_what_functions_return_and_how_they_end(text, mine, capsys):
    mine(text)
    if DATA[text]:
        assert DATA[text] in refused(capsys, *QUICK)
    else:
        assert main(QUICK, MODELS) == 0 and results()[0]["proof"]["holds"]


@pytest.mark.filterwarnings("error")
def test_numbers_such_as_numpy_has_are_those_that_networks_have_in_every_command(mine, capsys):
    mine("def load():\n    return Dataset('t', 2, *((x.double().numpy(), y.numpy()) for x, y in (part(64, 0), part(32, 1))))\n")
    assert main(QUICK, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    assert main(["eval", str(ticket), "--dataset", "mine:load", "--model", "mine:build"], MODELS) == 0
    assert "repeated exactly" in capsys.readouterr().out


@pytest.mark.drawn
def test_data_of_one_class_are_drawn_without_a_word_from_the_plots(mine, capsys):
    mine(old="(images[:, :4].sum(1) > 0).long()", new="torch.zeros(count, dtype=torch.long)")
    assert main(QUICK, MODELS) == 0
    assert not capsys.readouterr().err


def test_an_out_that_is_a_link_to_nothing_is_told_as_that(mine, capsys):
    Path("runs").symlink_to("nowhere")
    assert "'runs' (it is a link to what is not there): name a directory" in refused(capsys, *QUICK)


def test_numba_that_compiles_nothing_is_no_fault_of_the_network(monkeypatch):
    numba = pytest.importorskip("numba")
    from popup.products.numba_kernels import _compiled

    assert _compiled(), "imported before, or what other tests call here would stay uncompiled"
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    _compiled.cache_clear()
    with pytest.raises(popup.UsageError, match="while NUMBA_DISABLE_JIT is set: unset it"):
        _compiled()
    monkeypatch.undo()
    assert _compiled()


CONSTANTS = {  # what a module has made, or keeps, before its network is built
    "a tensor": "MEAN = torch.full((1, 1, 1), 0.3)\nUSED = lambda x: x - MEAN\nlayer = lambda: nn.Linear(64, 64)\n",
    "a width": "WIDE = int(torch.linspace(0, 64, 2)[1])\nUSED = lambda x: x\nlayer = lambda: nn.Linear(64, WIDE)\n",
    "a network": "import copy\nBACKBONE = nn.Linear(64, 64)\nUSED = lambda x: x\nlayer = lambda: copy.deepcopy(BACKBONE)\n",
    "a cached tensor": "import functools\n@functools.cache\ndef mean(): return torch.full((1, 1, 1), 0.3)\n"
                       "USED = lambda x: x - mean()\nlayer = lambda: nn.Linear(64, 64)\n"}
USING = """
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.inner, self.outer = layer(), nn.Linear(64, classes)
    def forward(self, x):
        return self.outer(torch.relu(self.inner(USED(x).flatten(1))))

def build(image, classes):
    return Net(classes)
"""


@pytest.mark.parametrize("what", CONSTANTS)
def test_what_a_module_makes_before_its_network_has_numbers(what, mine, capsys):
    """Also where the data are another's, so that the network is the first to import it."""
    given = ["--dataset", "digits", "--model", "mine:build", "--epochs", "1", "--er-p", "0.1", "--out", "runs"]
    mine(CONSTANTS[what] + USING)
    assert main(given, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    mine(CONSTANTS[what] + USING)
    assert main(["eval", str(ticket), "--model", "mine:build"], MODELS) == 0
    mine(CONSTANTS[what] + USING)
    assert main(["verify", str(ticket), "--model", "mine:build"], MODELS) == 0
    mine(CONSTANTS[what] + USING)
    assert main(["densities", "--model", "mine:build", "--image", "1", "8", "8", "--classes", "10"], MODELS) == 0
    if what == "a network":
        mine(CONSTANTS[what] + USING)
        assert main([*given[:-1], "grid", "--seeds", "2", "--controls", "none", "--workers", "1"], MODELS) == 0


def test_a_builder_that_keeps_its_network_is_told_as_that_whatever_its_data(mine, capsys):
    mine("import functools\n@functools.cache\ndef build(image, classes):\n"
         "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))\n")
    line = refused(capsys, "--dataset", "digits", "--model", "mine:build", "--er-p", "0.1")
    assert "returns the same network at each call" in line


DRAWS = {"torch": "float(torch.rand(()))", "Python": "random.random()", "numpy": "np.random.rand()"}
DROPPED = """
import random
class Drop(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(12, 12)
    def forward(self, x):
        return x if self.training and {draw} < 0.5 else x + torch.relu(self.inner(x))

def build(image, classes):
    return nn.Sequential(Drop(), Drop(), nn.Linear(12, classes))
"""


@pytest.mark.parametrize("draw", DRAWS)
def test_what_a_forward_draws_is_of_the_seed_and_goes_on_from_a_checkpoint(draw, mine, stop_at):
    mine(DROPPED.format(draw=DRAWS[draw]))
    found = []
    for out in ("one", "two"):
        assert main([*QUICK[:-1], out], MODELS) == 0
        found.append(next(Path(out).glob("*/ticket.safetensors")).read_bytes())
    config = Config.from_flat({"dataset": "mine:load", "model": "mine:build", "batch_size": 16, "epochs": 2, "er_p": 0.5})
    laboratory = Laboratory(MODELS, Machine("cpu"), Path("runs"), stop_at(5))
    with pytest.raises(Stopped):
        run(laboratory, settled(laboratory, config))
    assert main(QUICK, MODELS) == 0
    found.append(next(Path("runs").glob("*/ticket.safetensors")).read_bytes())
    assert found[0] == found[1] == found[2]


HEADS = """
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.up = nn.Linear(1, 8)
        self.body = nn.TransformerEncoderLayer(8, 4, dim_feedforward=8, batch_first=True, dropout=0.0)
        self.out = nn.Linear(8, classes)
        self.slope = 1.0
        self.register_buffer("shift", torch.full((12,), 0.1), persistent=False)
    def forward(self, x):
        return self.out(self.body(self.up((x + self.shift).unsqueeze(-1))).mean(1)) * self.slope

def build(image, classes):
    return Net(classes)
"""


@pytest.mark.parametrize(("old", "new"), [("(8, 4,", "(8, 2,"), ("(12,), 0.1", "(12,), 0.9")])  # more are in test_identity.py
def test_what_no_shape_tells_tells_a_network_from_another(old, new, mine, capsys, stop_at):
    mine(HEADS)
    laboratory = Laboratory(MODELS, Machine("cpu"), Path("cut"), stop_at(5))
    with pytest.raises(Stopped):
        run(laboratory, settled(laboratory, Config.from_flat({
            "dataset": "mine:load", "model": "mine:build", "batch_size": 16, "epochs": 2, "er_p": 0.5})))
    assert main(QUICK, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    evaluated = ["eval", str(ticket), "--model", "mine:build", "--dataset", "mine:load"]
    assert main(evaluated, MODELS) == 0
    mine(HEADS.replace(old, new))
    assert "had another network than mine:build builds now" in refused(capsys, *QUICK)
    assert "is of a run of another network than there is now" in refused(capsys, *QUICK[:-1], "cut")
    assert main(evaluated, MODELS) == 1
    assert "not compared: mine:build builds another network now than the run's" in capsys.readouterr().out


def test_a_network_that_each_seed_draws_is_no_other_one(mine, capsys):
    mine("def build(image, classes):\n    w = int(torch.randint(10, 40, ()))\n"
         "    return nn.Sequential(nn.Linear(12, w), nn.ReLU(), nn.Linear(w, classes))\n")
    grid = [*QUICK, "--controls", "none", "--workers", "1", "--seeds"]
    for seeds in ("2", "2", "3"):
        assert main([*grid, seeds], MODELS) == 0
        assert "WARNING" not in capsys.readouterr().out
    assert len({row["layers"][0]["entries"] for row in results()}) > 1 and len(results()) == 3
    mine(old="nn.ReLU()", new="nn.Tanh()")
    assert "had another network than mine:build builds now, by its class, " in refused(capsys, *grid, "4")


def test_a_worker_meets_a_checkpoint_of_another_network_before_it_does_a_cell(mine, capsys, stop_at):
    grid = [*QUICK, "--seeds", "2", "--controls", "random", "--plan-only"]
    assert main(grid, MODELS) == 0
    laboratory = Laboratory(MODELS, Machine("cpu"), Path("runs"), stop_at(5))
    with pytest.raises(Stopped):
        run(laboratory, settled(laboratory, Config.from_flat({
            "dataset": "mine:load", "model": "mine:build", "batch_size": 16, "epochs": 2, "er_p": 0.5})))
    mine(old="nn.ReLU()", new="nn.Tanh()")
    (checkpoint,) = Path("runs").glob("*/checkpoint.safetensors")
    for arguments in (["worker", "runs", "--trust"], grid[:-1]):
        line = refused(capsys, *arguments)
        assert f"1 begun run in runs ({checkpoint}, ...) had another network" in line
        assert not list(Path("runs").glob("*/failure.json"))
    mine()
    assert main(["worker", "runs", "--trust"], MODELS) == 0 and len(results()) == 4


REFUSED = {  # before a step
    "class Token(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.token = nn.Parameter(torch.from_numpy(np.random.default_rng().normal(size=12)).float())\n"
    "    def forward(self, x): return x + self.token\n"
    "def build(image, classes): return nn.Sequential(Token(), nn.Linear(12, classes))\n":
        "the parameter 0.token of model 'mine:build', which is not masked, is another at each call",
    "class Kept(nn.Module):\n    def get_extra_state(self): return {'seen': 0}\n    def set_extra_state(self, state): pass\n"
    "    def forward(self, x): return x\n"
    "def build(image, classes): return nn.Sequential(Kept(), nn.Linear(12, classes))\n":
        "0._extra_state of the network's state is a dict",
    "def build(image, classes):\n    import a_package_that_is_not_there\n":
        "for features [12]: ModuleNotFoundError: No module named 'a_package_that_is_not_there' (mine.py, line 17)",
    "def build(image, classes):\n    import io\n    return torch.load(io.BytesIO(b'xx'))\n": "(mine.py, line 18)",
    "def load():\n    return 1 / 0\n": "cannot be loaded by its function: ZeroDivisionError: division by zero (mine.py, line 17)"}


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_run_can_use_is_one_line_before_it(text, mine, capsys):
    mine(text)
    assert REFUSED[text] in refused(capsys, *QUICK) and not list(Path("runs").glob("*"))


def test_a_name_that_counts_is_no_other_network(mine):
    mine("import itertools\ncount = itertools.count()\nclass Named(nn.Linear):\n    def __init__(self, *sizes):\n"
         "        super().__init__(*sizes)\n        self.number = next(count)\n"
         "    def extra_repr(self): return f'number {self.number}'\n"
         "def build(image, classes): return nn.Sequential(Named(12, 8), nn.ReLU(), Named(8, classes))\n")
    assert main([*QUICK, "--seeds", "2", "--controls", "none", "--workers", "1"], MODELS) == 0
    assert main([*QUICK, "--seeds", "2", "--controls", "none", "--workers", "1"], MODELS) == 0
    assert len({whatever_the_seed(row["network_fingerprint"]) for row in results()}) == 1


def test_data_in_an_order_that_a_function_draws_are_the_same_in_each_process(mine):
    for draw in ("torch.randperm(64)", "np.random.permutation(64)", "__import__('random').sample(range(64), 64)"):
        text = f"def load():\n    images, labels = part(64, 0)\n    order = {draw}\n" \
               "    return (images[order], labels[order]), part(32, 1)\n"
        for _ in range(2):
            mine(text)
            assert main([*QUICK[:-1], draw[:4]], MODELS) == 0

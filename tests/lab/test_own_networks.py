"""Networks of the user's that write to their inputs, draw by generators of their own, note things, or cannot be copied."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import popup
from models import MODELS
from popup.errors import UsageError
from popup.lab.commands.command import main
from popup.lab.training.checkpoint import CheckpointError
from popup.source.copying import deep_copy
from tests.lab.test_own_functions import QUICK, refused, results

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(96, 12, generator=GENERATOR)
SPLIT = INPUTS, (INPUTS[:, :4].sum(1) > 0).long()
CONFIG = popup.Config.from_flat({"epochs": 4, "batch_size": 16, "er_p": 0.5})
WRITES = """
class Writes(nn.Module):
    def forward(self, x): return x.mul_(0.5)
def one(image, classes): return nn.Sequential(Writes(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, classes))
def two(image, classes): return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, classes))
"""
OF_THE_FILE = np.random.default_rng(0)
DRAWS = {"numpy": lambda: np.random.default_rng(0), "old numpy": lambda: np.random.RandomState(0),
         "python": lambda: __import__("random").Random(0), "torch": lambda: torch.Generator().manual_seed(0),
         "old numpy on other bits": lambda: np.random.RandomState(np.random.PCG64(0))}
INSIDE = {"list": lambda: [np.random.default_rng(0)], "mapping": lambda: {"a": [np.random.default_rng(0)]},
          "object": lambda: Helper(np.random.default_rng(0)), "method": lambda: np.random.default_rng(0).random,
          "module": lambda: [Hidden()], "bits": lambda: np.random.PCG64(0), "closure": lambda: drawing(np.random.default_rng(0))}


def plain():
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2))


class Helper:
    def __init__(self, own):
        self.own = own


class Hidden(nn.Module):
    """No child of the network: in a list."""

    def __init__(self):
        super().__init__()
        self._own = np.random.default_rng(0)


def drawing(own):
    return lambda: own.random()


def draw(inside):
    """A number by the generator that stands inside of something."""
    if isinstance(inside, (list, dict)):
        return draw(inside[0] if isinstance(inside, list) else inside["a"])
    if isinstance(inside, Helper):
        return inside.own.random()
    if isinstance(inside, Hidden):
        return inside._own.random()
    if isinstance(inside, np.random.PCG64):
        return np.random.Generator(inside).random()
    return inside() if callable(inside) else inside.random()


class Noisy(nn.Module):
    """Draws in training by generators of its own, and of a layer that is masked."""

    def __init__(self, make):
        super().__init__()
        self.inner, self.outer = nn.Linear(12, 16), nn.Linear(16, 2)
        self.own, self.inner.own = make(), make()

    def forward(self, x):
        for own in (self.own, self.inner.own) if self.training else ():
            chance = torch.rand((), generator=own) if isinstance(own, torch.Generator) else draw(own)
            x = x * (1 + 0.1 * float(chance))
        return self.outer(torch.relu(self.inner(x)))


def fitted(make, path=None, stop=None, config=CONFIG):
    """The ticket's codes of a search that is broken off after `stop` epochs, or is whole; and what it found."""
    torch.manual_seed(0)
    net = make()

    def on_epoch(metrics):
        if metrics["epoch"] == stop:
            raise KeyboardInterrupt

    try:
        outcome = popup.fit(net, SPLIT, SPLIT, config, on_epoch, popup.Checkpoints(path) if path else None)
    except KeyboardInterrupt:
        outcome = None
    return [layer.codes.tolist() for layer in popup.extract(net).layers], outcome


def test_a_network_that_writes_to_its_input_changes_nobodys_images(mine, capsys):
    mine(WRITES)
    grid = [*QUICK[:3], "mine:one", "mine:two", *QUICK[4:], "--controls", "random", "--workers", "1"]
    assert main(grid, MODELS) == 0 and main([*QUICK[:3], "mine:two", *QUICK[4:-1], "alone"], MODELS) == 0
    (alone,) = Path("alone").glob("*/ticket.safetensors")
    assert alone.read_bytes() == (Path("runs") / alone.parent.name / alone.name).read_bytes()
    for ticket in Path("runs").glob("*/ticket.safetensors"):
        model = popup.load(ticket).about["task"]["model"]
        assert main(["eval", str(ticket), "--model", model, "--dataset", "mine:load"], MODELS) == 0
        assert "repeated exactly" in capsys.readouterr().out


def test_arrays_that_may_only_be_read_are_taken_without_a_word(mine, tmp_path):
    np.save(tmp_path / "images.npy", INPUTS.numpy())
    mine("def load():\n    images, labels = np.load('images.npy', mmap_mode='r'), np.arange(96) % 2\n"
         "    return (images, labels), (images, labels)\n"
         "def build(image, classes): return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(12, classes))\n")
    before = (tmp_path / "images.npy").read_bytes()
    assert main(QUICK, MODELS) == 0 and (tmp_path / "images.npy").read_bytes() == before


def test_fit_leaves_the_callers_images_alone():
    inputs = INPUTS.clone()
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    outcome = popup.fit(net, (inputs, SPLIT[1]), (inputs[:40], SPLIT[1][:40]), CONFIG)
    assert torch.equal(inputs, INPUTS) and outcome.proof.holds


@pytest.mark.parametrize("kind", [*DRAWS, *INSIDE])
def test_a_search_goes_on_with_the_draws_of_the_networks_own_generators(kind, tmp_path):
    make = {**DRAWS, **INSIDE}[kind]
    whole, _ = fitted(lambda: Noisy(make))
    fitted(lambda: Noisy(make), tmp_path / "c", stop=2)
    assert fitted(lambda: Noisy(make), tmp_path / "c")[0] == whole
    assert fitted(lambda: Noisy(make), tmp_path / "d")[0] == whole


@pytest.mark.parametrize(("made", "used"), [
    ("np.random.default_rng()", "self.own"), ("[np.random.default_rng()]", "self.own[0]")])
def test_a_generator_of_no_seed_is_refused_before_a_run(made, used, mine, capsys):
    mine("class Noisy(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
         f"        self.own = {made}\n"
         f"    def forward(self, x): return x * (1 + 0.1 * {used}.random()) if self.training else x\n"
         "def build(image, classes): return nn.Sequential(Noisy(), nn.Linear(12, classes))\n")
    line = refused(capsys, *QUICK)
    assert "the attribute 0.own of model 'mine:build' is another at each call" in line and "give its generator a seed" in line


def test_what_is_another_in_training_alone_is_refused_before_a_run(mine, capsys):
    mine("rates = iter(torch.linspace(0, 0.9, 99).tolist())\ndef build(image, classes):\n"
         "    return nn.Sequential(nn.Dropout(next(rates)), nn.Linear(12, classes))\n")
    assert "model 'mine:build' builds another network at each call, also from one seed (0 p)" in refused(capsys, *QUICK)


@pytest.mark.parametrize("change", [
    "self.steps += 1", "self.mean = x.mean(0).detach()", "self.average.add_(x.mean().detach())", "self.array += 1",
    "self.whole = np.int64(self.whole + 1)", "self.all.append(0)", "self.of['a'][0] += 1",
    "self.calls += 1; self.steps += self.calls % 3 == 0", "OF_THE_FILE.random()"])
def test_what_no_checkpoint_keeps_is_told(change, tmp_path):
    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.mean, self.layer, self.array = 0, torch.zeros(12), nn.Linear(12, 2), np.zeros(2)
            self.whole, self.all, self.of = np.int64(0), [], {"a": [0]}
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.register_buffer("average", torch.zeros(()), persistent=False)

        def forward(self, x):
            exec(change) if self.training else None
            return self.layer(x)

    names = "(steps|mean|average|array|whole|all|of|OF_THE_FILE)"
    with pytest.warns(UserWarning, match=f"{names} of the network changes in a step, which no checkpoint keeps"):
        fitted(Noting, tmp_path / "c")


def test_what_evaluation_alone_holds_is_told_of_no_step(tmp_path):
    class Caching(nn.Module):
        """As timm's LeViT: what it computes in evaluation is kept until it trains."""

        def __init__(self):
            super().__init__()
            self.layer, self.cache = nn.Linear(12, 2), {}

        def train(self, mode=True):
            self.cache = {} if mode else self.cache
            return super().train(mode)

        def forward(self, x):
            if not self.training:
                self.cache["last"] = x.mean(0)
            return self.layer(x)

    assert fitted(Caching, tmp_path / "c")[1].proof.holds, "any warning is an error here"


def test_notes_of_a_pass_make_no_other_network_for_eval(mine, capsys):
    mine("class Noting(nn.Module):\n    calls = 0\n    def forward(self, x):\n"
         "        self.shape, self.calls = x.shape, self.calls + 1\n        return x\n"
         "def build(image, classes): return nn.Sequential(Noting(), nn.Linear(12, classes))\n")
    with pytest.warns(UserWarning, match=r"0\.calls of the network"):
        assert main(QUICK, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    capsys.readouterr()
    assert main(["eval", str(ticket), "--model", "mine:build", "--dataset", "mine:load"], MODELS) == 0
    assert "repeated exactly" in capsys.readouterr().out


CHANGED = {  # what differs, its words, and both
    "order": ("children", "nn.Sequential(OrderedDict(act=nn.ReLU(), norm=nn.BatchNorm1d(12), head=nn.Linear(12, 2)))",
              "nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(12), act=nn.ReLU(), head=nn.Linear(12, 2)))"),
    "lambda": ("act", "With(act=lambda x: x.relu())", "With(act=lambda x: x.relu() * 2)"),
    "closure": ("act", "With(act=scaled(1))", "With(act=scaled(2))"),
    "dict with a module": ("options", "With(options={'of': torch, 'scale': 1})", "With(options={'of': torch, 'scale': 2})"),
    "dataclass": ("options", "With(options=Options(1))", "With(options=Options(2))"),
    "own class": ("options", "With(options=Own(1))", "With(options=Own(2))"),
    "tensor": ("table", "With(table=torch.ones(12))", "With(table=torch.ones(12) * 2)"),
    "array": ("table", "With(table=np.ones(12))", "With(table=np.ones(12) * 2)"),
    "parameter": ("token", "With(token=nn.Parameter(torch.ones(12)))", "With(token=nn.Parameter(torch.ones(12) * 2))"),
    "buffer": ("kept", "With(kept=torch.ones(12))", "With(kept=torch.ones(12) * 2)"),
    "mask": ("left", "With(left=torch.full((9, 9), -torch.inf).triu(1))", "With(left=torch.full((9, 9), -torch.inf).triu(2))")}
WITH = """
import dataclasses
from collections import OrderedDict
@dataclasses.dataclass
class Options: scale: int
class Own:
    def __init__(self, scale): self.scale = scale
def scaled(by): return lambda x: x.relu() * by
class With(nn.Module):
    def __init__(self, **values):
        super().__init__()
        self.layer = nn.Linear(12, 2)
        for name, value in values.items():
            if name in ("kept", "left"): self.register_buffer(name, value, persistent=name == "kept")
            else: setattr(self, name, value)
    def forward(self, x): return self.layer(x)
"""


@pytest.mark.parametrize("name", CHANGED)
def test_a_finished_run_is_not_passed_off_as_another_networks_and_a_line_says_by_what(name, mine, capsys):
    word, one, other = CHANGED[name]
    mine(f"{WITH}def build(image, classes): return {one}\n")
    assert main(QUICK, MODELS) == 0 and main(QUICK, MODELS) == 0
    (ticket,) = Path("runs").glob("*/ticket.safetensors")
    mine(f"{WITH}def build(image, classes): return {other}\n")
    for seeds in ("1", "2"):
        assert f"had another network than mine:build builds now, by its {word} (" in refused(capsys, *QUICK, "--seeds", seeds)
    for command in (["verify", str(ticket)], ["eval", str(ticket), "--dataset", "mine:load"]):
        assert main([*command, "--model", "mine:build"], MODELS) == 1
        assert f"mine:build builds another network now than the run's, by its {word}" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["cuda:0", "cpu"])
def test_a_device_that_is_noted_is_the_machines(where, mine):
    mine(f"{WITH}def build(image, classes): return With(device='cuda', other=torch.device('cpu'))\n")
    assert main(QUICK, MODELS) == 0
    mine(f"{WITH}def build(image, classes): return With(device='{where}', other=torch.device('cuda'))\n")
    assert main([*QUICK, "--seeds", "2", "--controls", "none", "--workers", "1"], MODELS) == 0 and len(results()) == 2


@pytest.mark.parametrize("settings", [{"anneal": "cubic"}, {"rank": "value"}, {"scope": "global"}, {"method": "signed"}])
def test_a_checkpoint_of_another_search_in_a_network_that_came_attached_is_refused(settings, tmp_path):
    def attached(**settings):
        return popup.attach(plain(), er_p=0.5, search=popup.SearchSettings(**settings))

    usual = popup.Config.from_flat({"epochs": 4, "batch_size": 16})
    fitted(lambda: attached(**settings), tmp_path / "c", stop=2, config=usual)
    with pytest.raises(CheckpointError, match="another network than there is now, by its search"):
        fitted(attached, tmp_path / "c", config=usual)


@pytest.mark.parametrize("kept", [True, False])
def test_a_checkpoint_of_other_buffers_is_refused(kept, tmp_path):
    def scaled(by):
        net = plain()
        net.register_buffer("scale", torch.tensor(by), persistent=kept)
        return net

    fitted(lambda: scaled(1.0), tmp_path / "c", stop=2)
    with pytest.raises(CheckpointError, match="by its scale"):
        fitted(lambda: scaled(-2.0), tmp_path / "c")


def test_the_same_call_after_a_whole_search_gives_the_same_ticket(tmp_path):
    first, outcome = fitted(plain, tmp_path / "c")
    again, repeated = fitted(plain, tmp_path / "c")
    assert again == first and repeated.history == outcome.history


def test_what_is_no_place_for_a_checkpoint_is_told_before_the_search(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "no" / "c", tmp_path / "file" / "c"):
        with pytest.raises(UsageError, match="no folder that can be written to"):
            fitted(lambda: nn.Linear(12, 2), path)
    for wrong in (lambda: popup.Checkpoints(3), lambda: popup.Checkpoints(seconds="30"), lambda: popup.Checkpoints(seconds=-1),
                  lambda: popup.fit(nn.Linear(12, 2), SPLIT, SPLIT, {"epochs": 1}),
                  lambda: popup.fit(nn.Linear(12, 2), SPLIT, SPLIT, CONFIG, checkpoints="c")):
        with pytest.raises(UsageError):
            wrong()


class Keeping(nn.Module):
    """Has what Python makes no copy of, and activations in lists."""

    def __init__(self):
        super().__init__()
        self.lock, self.library, self.whole = threading.Lock(), [torch], [self]
        self.ring = [[] for _ in range(12)]
        for one in self.ring:
            one += self.ring
        self.numbers = (number for number in range(3))
        self.layer = nn.Linear(12, 2)

    def forward(self, x):
        found = self.layer(x)
        self.features, self.maps = [found], {"last": (found,)}
        return found


def test_a_network_with_what_cannot_be_copied_is_searched_and_copied():
    net = Keeping()
    net(INPUTS)
    copied = deep_copy(net)
    assert copied.lock is net.lock and copied.whole[0] is copied and copied.layer is not net.layer
    assert copied.features[0].grad_fn is None and copied.maps["last"][0] is copied.features[0]
    assert fitted(Keeping)[1].proof.holds


SHARED = """
import functools
@functools.cache
def table(size):
    net = nn.Module()
    net.register_buffer("rows", torch.linspace(0, 1, size), persistent=False)
    return net
class Shifted(nn.Module):
    def __init__(self, classes, wide):
        super().__init__()
        self.table, self.layer, self.last = table(12), nn.Linear(12, wide), nn.Linear(wide, classes)
    def forward(self, x): return self.last(self.layer(x + self.table.rows).relu())
def build(image, classes, width=1): return Shifted(classes, int(8 * width))
"""


def test_a_part_that_networks_share_keeps_its_numbers(mine):
    mine(SHARED)
    assert main(QUICK, MODELS) == 0 and main([*QUICK, "--width", "2"], MODELS) == 0
    for ticket in Path("runs").glob("*/ticket.safetensors"):
        mine(SHARED)  # as another process has it
        assert main(["eval", str(ticket), "--model", "mine:build", "--dataset", "mine:load"], MODELS) == 0


def test_a_module_that_switches_gradients_off_for_itself_does_so_alone(mine):
    mine("torch.set_grad_enabled(False)\n")
    assert main(QUICK, MODELS) == 0 and torch.is_grad_enabled()


def test_two_networks_with_other_layers_are_in_one_report(tmp_path):
    assert main(["--model", "mlp", "small_conv", "--epochs", "1", "--width", "0.1", "--controls", "random", "--workers", "1",
                 "--out", str(tmp_path)], MODELS) == 0
    assert (tmp_path / "report.html").exists()

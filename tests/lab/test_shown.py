"""Names from outside are text to a terminal in whatever a command prints: each command is driven with hostile ones."""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import MODELS
from popup import errors, load
from popup.lab.commands.command import COMMANDS, main
from popup.lab.commands.ending import plain_warnings

ORDER = "\x1b[31m\x07"  # to a terminal: all that follows is red; a bell
SHOWN = "?[31m?"
QUICK = ["--epochs", "1", "--widths", "4", "--batch-size", "8", "--controls", "none", "--threads", "1", "--workers", "1"]


@dataclass(frozen=True)
class Place:
    """A folder whose name is an order, with images and a text named so, a run's directory, and its tickets: one as it was, one
    whose file says what a stranger wrote into it."""

    root: Path
    images: str
    text: str
    runs: Path
    ticket: Path
    forged: Path

    def new(self, name: str) -> str:
        """A path that is not there yet, or is no more."""
        path = self.root / f"{name}{ORDER}"
        shutil.rmtree(path, ignore_errors=True)
        return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / ORDER
    draw = np.random.default_rng(0)
    for split, label in ((split, label) for split in ("train", "test") for label in (f"cat{ORDER}", "dog")):
        folder = root / f"images{ORDER}" / split / label
        folder.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}{ORDER}.png")
        (folder / f"left out{ORDER}.gif").write_bytes(b"GIF89a")
    (root / f"text{ORDER}.txt").write_text("a word and another word, and so on. " * 200)
    images, runs = f"folder:{root}/images{ORDER}", root / f"runs{ORDER}"
    assert main([*QUICK, "--dataset", images, "--out", str(runs)], MODELS) == 0
    (ticket,) = runs.glob("*/ticket.safetensors")
    found, forged = load(ticket), root / f"forged{ORDER}"
    replace(found, recipe=replace(found.recipe, skip=(ORDER,), gain=f"1.0 {ORDER}=2.0"),
            about={**found.about, "data": ORDER, ORDER: ORDER, "built": {ORDER: ORDER}}).save(forged)
    return Place(root, images, f"text:{root}/text{ORDER}.txt", runs, ticket, forged)


BENCH = ["--rounds", "1", "--largest", "0", "--no-subset-sums", "--no-sparse-inference", "--no-small-networks",
         "--no-wide-networks", "--no-calls", "--batch", "4", "--device", "cpu", "--side", "4", "--precision", "fp32",
         "--model", "chain:flatten-linear"]
LAW = ["--er-p", "0.9", "--epsilon", "0.1", "--parameters", "20", "--sources", "0", "--all-at-once", "0"]
PROVE = ["--widths", "1", "--epochs", "1", "--er-p", "0.9", "--epsilon", "5", "--compare", "0", "--threads", "1"]

CASES: dict[str, Callable[[Place], list[list[str]]]] = {  # by command the arguments of calls that get as far as printing
    "": lambda place: [[*QUICK, "--dataset", place.images, "--out", str(place.runs)],
                       [*QUICK, "--dataset", place.images, "--seeds", "2", "--out", place.new("sweep")],
                       [*QUICK, "--dataset", place.images, "--seeds", "2", "--plan-only", "--out", place.new("plan")],
                       [*QUICK, "--dataset", place.text, "--model", "gpt", "--image-size", "8", "--widths", "8", "16",
                        "--out", place.new("text runs")]],
    "worker": lambda place: [[str(place.runs)]],
    "report": lambda place: [[str(place.runs)]],
    "eval": lambda place: [[str(place.ticket)], [str(place.ticket), "--dataset", place.images], [str(place.forged)]],
    "show": lambda place: [[str(place.ticket)], [str(place.forged)]],
    "verify": lambda place: [[str(place.ticket)], [str(place.forged)]],
    "export": lambda place: [[str(place.ticket), place.new(f"plain{ending}") + ending] for ending in (".safetensors", ".pt2")],
    "diff": lambda place: [[str(place.ticket), str(place.forged)]],
    "recipes": lambda place: [[]],
    "densities": lambda place: [["--model", "mlp", "--out", place.new("densities")]],
    "bench": lambda place: [[*BENCH, "--out", place.new("bench")]],
    "law": lambda place: [[*LAW, "--out", place.new("law")]],
    "prove": lambda place: [[*PROVE, "--dataset", place.images, "--out", place.new("prove")]],
}
SILENT = ("recipes", "verify")  # say nothing that is from outside


def test_each_command_is_driven():
    """A new command needs a case here: with names of files, data, classes and tickets that are orders to a terminal."""
    assert CASES.keys() == {"", "worker", *COMMANDS}


@pytest.mark.filterwarnings("ignore:.*stay dense")
@pytest.mark.parametrize("command", CASES)
def test_what_a_command_prints_orders_a_terminal_nothing(command, place, capsys):
    text = ""
    for arguments in CASES[command](place):
        capsys.readouterr()
        code = main([command, *arguments] if command else arguments, MODELS)
        printed = capsys.readouterr()
        assert (printed.out and code in (0, 1)) or str(place.forged) in arguments, printed.err
        text += printed.out + printed.err
    assert not {letter for letter in text if not letter.isprintable()} - {"\n"}, repr(text)
    assert SHOWN in text or command in SILENT, text


def test_a_warning_is_text():
    with plain_warnings():
        assert warnings.formatwarning(f"of {ORDER}", UserWarning, errors.__file__, 1) == f"popup: of {SHOWN}\n"

"""eval compares with the record exactly where the data are the run's, and says which it did."""

import shutil

import numpy as np
import pytest
from PIL import Image

from models import MODELS
from popup import load
from popup.lab.commands.command import main

OTHERS = "not compared: the data are others than the run's (their fingerprints differ)"
NO_FINGERPRINT = "not compared: the ticket records no fingerprint of its data, so these may be others"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of images, and a ticket that was found on it."""
    place = tmp_path_factory.mktemp("eval")
    pixels = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 9)):
        for label, low in (("dark", 0), ("light", 90)):
            folder = place / "images" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(pixels.integers(low, low + 160, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    assert main(["--dataset", f"folder:{place / 'images'}", "--epochs", "1", "--widths", "8", "--batch-size", "8",
                 "--out", str(place / "runs"), "--data-dir", str(place / "data")], MODELS) == 0
    (ticket,) = place.glob("runs/*/ticket.safetensors")
    return place / "images", ticket


@pytest.fixture
def files(trained, tmp_path):
    """Copies of both, at another place."""
    shutil.copytree(trained[0], tmp_path / "images")
    return tmp_path / "images", shutil.copy(trained[1], tmp_path / "ticket")


def evaluated(capsys, ticket, *arguments):
    """Exit code and the line on the record."""
    capsys.readouterr()
    code = main(["eval", str(ticket), "--data-dir", str(ticket.parent / "data"), *arguments], MODELS)
    return code, capsys.readouterr().out.splitlines()[-1].partition(", ")[2]


def change_accuracy(metadata, tensors):
    metadata["about"]["test_accuracy"] += 1e-9


def forget_fingerprint(metadata, tensors):
    del metadata["about"]["data_fingerprint"]


def test_the_runs_data_are_known_by_their_content_wherever_they_lie(files, capsys):
    images, ticket = files
    assert evaluated(capsys, ticket) == evaluated(capsys, ticket, "--dataset", f"folder:{images}") == (0, "repeated exactly")


def test_a_ticket_that_computes_something_else_fails_also_where_its_data_are_named(files, forge, capsys):
    images, ticket = files
    forge(ticket, change_accuracy)
    for arguments in ([], ["--dataset", f"folder:{images}"]):
        code, said = evaluated(capsys, ticket, *arguments)
        assert code == 1 and said.startswith("NOT repeated")


def test_one_other_image_makes_other_data(files, forge, capsys):
    images, ticket = files
    Image.new("L", (8, 8), 7).save(images / "test" / "dark" / "0.png")
    assert evaluated(capsys, ticket, "--dataset", f"folder:{images}") == (0, OTHERS)
    forge(ticket, lambda metadata, tensors: metadata["about"]["task"].update(dataset=f"folder:{images}"))
    assert evaluated(capsys, ticket) == (1, OTHERS), "what is to be repeated cannot be: its own images are gone"


def test_a_ticket_of_before_is_compared_on_its_own_data_only(files, forge, capsys):
    images, ticket = files
    forge(ticket, forget_fingerprint)
    assert evaluated(capsys, ticket) == (0, "repeated exactly")
    assert evaluated(capsys, ticket, "--dataset", f"folder:{images}") == (0, NO_FINGERPRINT)
    forge(ticket, change_accuracy)
    assert evaluated(capsys, ticket)[0] == 1
    assert evaluated(capsys, ticket, "--dataset", f"folder:{images}") == (0, NO_FINGERPRINT)


@pytest.mark.parametrize("fingerprint", [3, None, ["x"], {}])
def test_a_fingerprint_that_is_none_is_not_one(fingerprint, files, forge, capsys):
    images, ticket = files
    forge(ticket, lambda metadata, tensors: metadata["about"].update(data_fingerprint=fingerprint))
    assert evaluated(capsys, ticket, "--dataset", f"folder:{images}") == (0, NO_FINGERPRINT)


def test_digits_which_have_no_file_are_known_by_their_content_too(tmp_path, capsys, forge):
    """Of held-out images the ticket's own part is compared, and no other."""
    for held_out in ("0", "0.2"):
        out = tmp_path / held_out
        assert main(["--epochs", "1", "--widths", "8", "--validation", held_out, "--out", str(out)], MODELS) == 0
        (ticket,) = out.glob("*/ticket.safetensors")
        assert len(load(ticket).about["data_fingerprint"]) == 64
        assert evaluated(capsys, ticket, "--dataset", "digits") == (0, "repeated exactly")
    assert evaluated(capsys, ticket, "--dataset", "digits", "--test") == (
        0, "not compared: that is validation accuracy, and this is test accuracy")
    forge(ticket, change_accuracy)
    assert evaluated(capsys, ticket, "--dataset", "digits")[0] == 1

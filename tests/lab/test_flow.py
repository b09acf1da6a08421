"""A run flows one way: what is looked at before its directory is made is what is run, made once."""

from collections import Counter

import pytest
import torch

import popup.lab.data.datasets
from models import MODELS
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.runs import ticket_run
from popup.lab.runs.control_run import ControlRun
from popup.lab.runs.flow import perform, run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.prepared import prepare
from popup.lab.training import attachment
from popup.lab.training.stop import RunFailed
from popup.search.network import is_attached

QUICK = ["--epochs", "1", "--widths", "8", "--weights", "kaiming_normal"]


@pytest.fixture
def counts(monkeypatch):
    """How often a network is built, with memory and as an outline, attached, and a mask computed."""
    found = Counter()

    def counted(name, function):
        def call(*arguments, **options):
            found[name] += 1
            return function(*arguments, **options)
        return call

    def built(image, classes, widths=(256, 256)):
        found["outlined" if torch.empty(0).is_meta else "built"] += 1
        return MODELS["mlp"](image, classes, widths)

    monkeypatch.setattr(attachment, "attach_recipe", counted("attached", attachment.attach_recipe))
    monkeypatch.setattr(attachment, "snip", counted("computed", attachment.snip))
    found.models = {"mlp": built}
    return found


@pytest.mark.parametrize("mask", ["bernoulli", "snip"])
def test_a_single_run_attaches_once_and_computes_its_mask_once(mask, counts, tmp_path, capsys):
    assert main([*QUICK, "--mask", mask, "--out", str(tmp_path)], counts.models) == 0
    assert counts["attached"] == 1 and counts["computed"] == (mask == "snip")
    assert counts["outlined"] == (mask != "snip"), "to see what computes sparsely, which of SNIP's densities is not known"
    assert counts["built"] == 2, "the one that is searched, and one to diagnose the file with"


def test_a_network_of_ones_own_is_built_twice_more_to_see_that_it_is_the_same(counts, tmp_path, capsys, monkeypatch):
    (tmp_path / "own_flow.py").write_text("from models import MODELS\nmade = []\n\n\ndef build(image, classes):\n"
                                          "    made.append(1)\n    return MODELS['mlp'](image, classes, (8,))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--model", "own_flow:build", "--epochs", "1", "--out", "runs"], MODELS) == 0
    import own_flow
    assert len(own_flow.made) == 2 + 1 + 2 and counts["attached"] == 1


def test_a_grid_attaches_each_ticket_once_and_tries_the_first(counts, tmp_path, capsys):
    grid = [*QUICK, "--k", "0.3", "0.5", "--seeds", "2", "--controls", "random", "--workers", "1", "--out", str(tmp_path)]
    assert main(grid, counts.models) == 0
    assert counts["attached"] == 4 + 1 and counts["outlined"] == 1, "eight runs of one task are looked at once"


def test_what_is_prepared_is_searched(tmp_path, monkeypatch):
    laboratory, config = Laboratory(MODELS, Machine("cpu"), tmp_path), Config.from_flat({"epochs": 1, "widths": (8,)})
    prepared, searched = prepare(laboratory, config), []
    assert is_attached(prepared.rest.ready.net) and not list(tmp_path.iterdir())
    search = ticket_run.search
    monkeypatch.setattr(ticket_run, "search", lambda ready, *others: searched.append(ready) or search(ready, *others))
    result = perform(laboratory, prepared, lambda metrics: None)
    assert searched == [prepared.rest.ready] and result["proof"]["holds"]
    assert result["layers"] == run(Laboratory(MODELS, Machine("cpu"), tmp_path / "again"), config)["layers"]


def test_a_control_is_prepared_before_its_directory_and_needs_its_ticket(tmp_path):
    laboratory, config = Laboratory(MODELS, Machine("cpu"), tmp_path), Config.from_flat({"epochs": 1, "widths": (8,)})
    control = config.replace(role="random")
    with pytest.raises(RunFailed, match="the file of its ticket is gone"):
        run(laboratory, control)
    assert not list(tmp_path.iterdir())
    run(laboratory, config)
    prepared = prepare(laboratory, control)
    assert isinstance(prepared.rest, ControlRun) and not laboratory.directory(control).path.exists()
    assert perform(laboratory, prepared, lambda metrics: None)["kept"] == sum(map(sum, prepared.rest.start.codes))


def too_few_classes(request):
    """Ten labels, of which it tells three."""
    digits = popup.lab.data.datasets.digits(request)
    return popup.lab.data.datasets.Dataset("Too few", 3, digits.train, digits.test)


REFUSED = [  # options, words
    (["--dataset", "few"], "from 0 to 2"), (["--model", "mpl"], "did you mean 'mlp'"),
    (["--mask", "snip", "--er-p", "1", "--bias", "search"], "mask"), (["--accumulate", "3"], "multiple of 3"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_a_refusal_leaves_no_directory(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(popup.lab.data.datasets.DATASETS, "few", too_few_classes)
    assert main(["--epochs", "1", *options, "--out", str(tmp_path / "runs")], MODELS) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not list((tmp_path / "runs").glob("*")), error

"""A method that trains another network than it saves cannot get an ok: each of wrong_methods.py is caught by the proof of a
whole run, or refused, and by the contract test; and what is right passes both."""

import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch

import popup
from popup import SearchSettings, UsageError, attach
from popup.lab.config import Config
from popup.lab.report.tables import proof_lines
from popup.lab.training.stop import RunFailed
from popup.search.contract import gate_faults
from popup.search.methods import METHODS
from popup.search.methods.signed import Signed
from popup.search.network import search_of
from popup.search.search import Search
from tests.laws import CLASSES, IMAGE, assert_laws, tiny
from tests.ticket import wrong_methods

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Wrong:
    """What must be said of a wrong method: by attach (None: nothing), by the proof (a field) or a refusal (words) of a run."""

    method: type
    attach: str | None
    field: str = ""
    refusal: str = ""


WRONG = [
    Wrong(wrong_methods.DroppedSign, "other codes than the ticket has", "trained"),
    Wrong(wrong_methods.SignAsFactor, "factors go from -1 to 1", "trained"),
    Wrong(wrong_methods.MinusW, "factors go from -1 to -1", "trained"),
    Wrong(wrong_methods.ForgottenScale, "trained 0.5 times as large", "trained"),
    Wrong(wrong_methods.NoisyCodes, "other codes than the ticket has", "outside"),
    Wrong(wrong_methods.NoisyKeys, "other codes than the ticket has|at other edges", "misused"),
    Wrong(wrong_methods.OneTooMany, "at other edges", "miscounted"),
    Wrong(wrong_methods.OneTooFew, "at other edges", "miscounted"),
    Wrong(wrong_methods.Elsewhere, "at other edges", "trained"),
    Wrong(wrong_methods.OneMoreTrained, "other codes than the ticket has", "trained"),
    Wrong(wrong_methods.OutsideTheSource, None, refusal="was written to"),
    Wrong(wrong_methods.SkippedLayer, "other codes than the ticket has", "trained"),
    Wrong(wrong_methods.WholeLayer, None, "miscounted"),
    Wrong(wrong_methods.ChangedWeight, None, "changed"),
    Wrong(wrong_methods.ChangedUnseen, None, "changed"),
    Wrong(wrong_methods.NoSuchCode, "not those of the book 'signed'", "trained"),
    Wrong(wrong_methods.WrittenRedraws, None, refusal="draws weights anew of edges that are selected"),
    Wrong(wrong_methods.SelectedRedrawn, None, refusal="draws weights anew of edges that are selected"),
    Wrong(wrong_methods.RememberedRedrawn, None, refusal="draws weights anew of edges that are selected"),
    Wrong(wrong_methods.RunningState, None, "changed"),
    Wrong(wrong_methods.OwnBook, "another book", "misused"),
    Wrong(wrong_methods.FewOtherwise, None, refusal="was written to"),
    Wrong(wrong_methods.OtherK, "other codes than the ticket has", "trained"),
    Wrong(wrong_methods.OtherKUntilTheEnd, "other codes than the ticket has", refusal="with other codes than the ticket has"),
    Wrong(wrong_methods.OtherKInLarge, None, "trained"),
    Wrong(wrong_methods.Multiplied, None, "outside"),
    Wrong(wrong_methods.Hooked, None, "outside"),
    Wrong(wrong_methods.ByMode, None, "differing"),
    Wrong(wrong_methods.SpoiledWeight, None, refusal="was written to"),
    Wrong(wrong_methods.TwoFaced, None, "outside"),
    Wrong(wrong_methods.LateSign, None, "trained"),
]


@pytest.fixture
def register(monkeypatch):
    """A function that puts a method into the registry by the name of wrong."""
    monkeypatch.setitem(wrong_methods.GROWN, "factor", 1.0)
    monkeypatch.setitem(METHODS, "wrong", None)
    return lambda method: METHODS.update(wrong=method)


@pytest.fixture
def untried(monkeypatch):
    """attach does not try methods, as if a small layer showed nothing."""
    monkeypatch.setattr(import_module("popup.search.attach"), "_try_method", lambda settings: None)


def attached(weights="kaiming_normal"):
    return attach(tiny(), er_p=0.6, k=0.4, seed=3, weights=weights, search=SearchSettings("wrong", redraw_every=2))


def run(epochs=1):
    """A whole run, of six steps an epoch."""
    images, labels = torch.randn(24, *IMAGE), torch.arange(24) % CLASSES
    config = Config().replace(er_p=0.6, k=0.4, weights="kaiming_normal", epochs=epochs, batch_size=4, method="wrong",
                              redraw_every=2)
    return popup.fit(tiny(), (images, labels), (images, labels), config)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.method.__name__)
def test_attach_refuses_what_a_small_layer_shows(wrong, register):
    register(wrong.method)
    if wrong.attach is None:
        attached()
        return
    net = tiny()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match=wrong.attach) as error:
        attach(net, er_p=0.6, k=0.4, method="wrong")
    assert "\n" not in str(error.value) and "method wrong" in str(error.value)
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.method.__name__)
def test_the_proof_of_a_whole_run_catches_it(wrong, register, untried, monkeypatch):
    register(wrong.method)
    if wrong.refusal:
        with pytest.raises((UsageError, RunFailed), match=wrong.refusal):
            run(epochs=2)
        return
    monkeypatch.setattr(Search, "check_weights", lambda search: None)  # which may be earlier, and then there is no proof
    proof = run().proof
    assert getattr(proof, wrong.field) and not proof.holds
    assert any(line.startswith("  BROKEN") for line in proof_lines(asdict(proof)))


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if not wrong.refusal], ids=lambda wrong: wrong.method.__name__)
def test_no_whole_run_gets_an_ok(wrong, register, untried):
    register(wrong.method)
    try:
        assert not run().proof.holds
    except UsageError as error:  # what training passes computed with is looked at before the ticket is used
        assert "was written to" in str(error)


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong.field == "trained"], ids=lambda wrong: wrong.method.__name__)
def test_a_run_of_several_epochs_ends_early_where_the_contract_is_broken(wrong, register, untried):
    register(wrong.method)
    with pytest.raises(RunFailed, match=r"method wrong trains a network that no ticket of it can be: of 0\.weight") as error:
        run(epochs=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.method.__name__)
def test_the_contract_test_catches_it(wrong, register, untried):
    register(wrong.method)
    with pytest.raises((AssertionError, UsageError)):
        assert_laws(attached(), 3)


def test_the_right_signed_method_passes_all_of_it(register):
    register(Signed)
    assert_laws(attached(), 3)
    proof = run(epochs=5).proof
    assert proof.holds and not any(line.startswith("  BROKEN") for line in proof_lines(asdict(proof)))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_every_registered_method_keeps_its_contract(method, progress):
    for settings in (SearchSettings(method), SearchSettings(method, anneal="linear", scope="global")):
        search = search_of(attach(tiny(), er_p=0.6, k=0.4, search=settings))
        search.progress = progress
        assert gate_faults(search, search.training_gates()) == {}


def test_the_command_line_ends_with_1_and_prints_what_is_broken_or_with_2_where_attach_refuses(tmp_path):
    for part in ("popup", "models", "run.py"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    methods = tmp_path / "popup/search/methods"
    shutil.copy(ROOT / "tests/ticket/wrong_methods.py", methods / "wrong.py")
    registry, first = methods / "__init__.py", "METHODS: dict[str, type[Method]] = {\n"
    lines = first + '    "larger": wrong.OtherKInLarge, "smaller": wrong.OtherK,\n'
    registry.write_text("from popup.search.methods import wrong\n" + registry.read_text().replace(first, lines))
    for method, code, words in (("larger", 1, "BROKEN the method keeps its contract"), ("smaller", 2, "with other codes than")):
        done = subprocess.run([sys.executable, "run.py", "--method", method, "--epochs", "1", "--widths", "16", "--out", method],
                              cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code and words in done.stdout + done.stderr, done.stderr
    assert not list((tmp_path / "smaller").rglob("*.*"))

"""How a search ends and where it is broken off: statistics, proofs, checkpoints, draws, what one of several ranks is refused."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

import popup
from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.data.dataset import Dataset
from popup.lab.precision import Precision
from popup.lab.runs.control_training import run_control
from popup.lab.runs.subnetwork import whole_source_of
from popup.lab.training import training
from popup.lab.training.checkpoint import CheckpointError, Checkpoints
from popup.lab.training.churn import Churn
from popup.lab.training.norms import averaging, running
from popup.lab.training.ranks import Ranks
from popup.lab.training.stop import RunFailed
from popup.search.search import Search
from popup.source.layer_source import draw_layer
from popup.source.layers import find_layers

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, LABELS = torch.randn(64, 3, 6, 6, generator=GENERATOR), torch.randint(0, 3, (64,), generator=GENERATOR)
SPLIT = IMAGES, LABELS
ONE = Config().replace(epochs=1, batch_size=16)


def normed(norm):
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3)])
def test_statistics_are_averages_over_all_batches(norm):
    """Instance norms take no momentum for one of 0: they were left at mean 0 and variance 1."""
    batches, momentum = IMAGES.split(16), norm.momentum
    with averaging([norm]) as begin:
        for number, batch in enumerate(batches, 1):
            begin(number)
            norm(batch)
    torch.testing.assert_close(norm.running_mean, torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0))
    assert norm.momentum == momentum and bool((norm.running_var != 1).all())


def test_a_search_with_instance_norms_ends_with_their_statistics():
    net = normed(nn.InstanceNorm2d(8, track_running_stats=True))
    popup.fit(net, SPLIT, SPLIT, ONE)
    assert bool(net[1].running_mean.any()) and bool((net[1].running_var != 1).all())


def test_fixed_statistics_stay_as_they_are():
    """They have no momentum, and ended a search after its last epoch."""
    net = normed(torchvision.ops.FrozenBatchNorm2d(8))
    net[1].running_mean.fill_(0.25)
    assert not running(net)
    assert popup.fit(net, SPLIT, SPLIT, ONE).proof.holds and bool((net[1].running_mean == 0.25).all())


def test_the_proof_looks_at_no_more_inputs_at_once_than_an_evaluation(monkeypatch):
    seen = []

    class Counting(nn.Sequential):
        def forward(self, x):
            seen.append((self.training, len(x)))
            return super().forward(x)

    monkeypatch.setattr(training, "EVALUATION_PIXELS", 5 * IMAGES[0].numel())
    popup.fit(Counting(nn.Flatten(), nn.Linear(108, 3)), SPLIT, SPLIT, ONE)
    assert max(count for trained, count in seen if not trained) == 5


@pytest.mark.parametrize("where", ["advance", "measure"])
def test_an_interrupt_between_a_step_and_what_the_method_makes_of_it_writes_no_checkpoint(where, tmp_path, monkeypatch):
    """It was of no moment: the step was counted, and some layers' means were of the one before."""
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == (3 if where == "advance" else 1):
            raise KeyboardInterrupt
        return usual(*arguments)

    owner = Search if where == "advance" else Churn
    usual = getattr(owner, where)
    monkeypatch.setattr(owner, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        popup.fit(normed(nn.BatchNorm2d(8)), SPLIT, SPLIT, ONE, checkpoints=Checkpoints(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_what_on_epoch_draws_changes_no_search_that_goes_on(tmp_path):
    """The epochs before are told again, and what that drew was missing in the steps."""
    def search(checkpoints=None, stop=0):
        def told(metrics):
            torch.rand(3)
            if metrics["epoch"] == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))
        popup.fit(net, SPLIT, SPLIT, Config().replace(epochs=4, batch_size=16), on_epoch=told, checkpoints=checkpoints)
        return popup.scores(net)

    whole = search()
    with pytest.raises(KeyboardInterrupt):
        search(Checkpoints(tmp_path / "c"), 2)
    assert all(map(torch.equal, whole, search(Checkpoints(tmp_path / "c"))))


class Other(Ranks):
    """A rank whose fellow says something."""

    def _all(self, value):
        return [value, "no numba here"]

    def share(self, value):
        return CheckpointError("c is damaged") if value is None else value


def test_what_one_rank_is_refused_all_are():
    with pytest.raises(RunFailed, match="rank 1 cannot take part: no numba here"), Other(0, 2).together():
        pass
    with pytest.raises(UsageError, match="mine"), Other(0, 2).together():
        raise UsageError("mine")
    with Ranks().together():
        pass


def test_a_checkpoint_that_rank_0_cannot_read_is_refused_on_each_rank(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.there = lambda ranks: True
    with pytest.raises(CheckpointError, match="c is damaged; remove it"):
        checkpoints.resume(SimpleNamespace(ranks=Other(1, 2)))


class Placed(nn.Module):
    """With places that are fixed."""

    def __init__(self):
        super().__init__()
        self.layer, self.places = nn.Linear(108, 3), nn.Parameter(torch.ones(1, 108), requires_grad=False)
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.layer(x.flatten(1) + self.places) + self.shift


def test_what_a_network_holds_fixed_stays_fixed_in_controls():
    net, config = Placed(), ONE.replace(role="dense_trained", er_p=1.0, k=1.0)
    start = whole_source_of(config.source, [draw_layer(config.source, layer, 1.0) for layer in find_layers(net)])
    run_control(net, Dataset("own", 3, SPLIT, SPLIT), config, start, lambda metrics: None)
    assert bool((net.places == 1).all()) and bool(net.shift.any()) and bool(net.layer.bias.any())


def test_a_ticket_and_its_controls_have_one_precision(monkeypatch):
    """A table that `only` names made the ticket's network large, and its controls' not."""
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(2000, 600), nn.Linear(600, 4)

        def forward(self, x):
            return self.head(self.table(x).mean(1))

    monkeypatch.setattr("popup.lab.precision.fast_bf16", lambda device: True)
    for options in ({"only": ("table", "head")}, {"skip": "table"}, {"bias": "search", "skip": "table"}):
        net = Words()
        plain = Precision.of(net, "auto")
        assert Precision.of(popup.attach(net, er_p=0.5, **options), "auto") == plain


@pytest.mark.parametrize(("train", "test", "words"), [
    ((torch.randint(9, (20, 8)),) * 2, (torch.randint(9, (20, 8)), torch.randint(9, (20,))), "labels have the shapes"),
    ((torch.randint(9, (20, 8)),) * 2, (torch.randint(9, (20, 8)), torch.randint(9, (20, 4))), "labels have the shapes")])
def test_labels_of_another_shape_in_the_test_data_are_refused_before_the_search(train, test, words):
    net = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9))
    with pytest.raises(UsageError, match=words):
        popup.fit(net, train, test, ONE.replace(skip=("0",)))


def test_images_that_a_network_has_made_and_a_network_without_parameters():
    images = IMAGES.clone().requires_grad_() * 2
    popup.fit(nn.Sequential(nn.Flatten(), nn.Linear(108, 3)), (images, LABELS), SPLIT, ONE.replace(epochs=2))
    with pytest.raises(UsageError, match="Flatten has no parameters, so that there is nothing to search"):
        popup.fit(nn.Flatten(), SPLIT, SPLIT, ONE)


@pytest.mark.parametrize(("fields", "words"), [
    ({"epoch": 3}, "unknown field of a config 'epoch': did you mean 'epochs'"), ({"learning_rate": 1}, "'learning_rate'"),
    ({"compile": "yes"}, "compile is 'yes': it must be True or False"), ({"widths": 64}, "widths is 64: give a tuple")])
def test_a_config_takes_no_field_that_it_does_not_know(fields, words):
    """A misspelt one was the default, without a word."""
    for make in (Config.from_flat, lambda fields: Config().replace(**fields)):
        with pytest.raises(UsageError, match=words):
            make(fields)
    assert Config().replace(widths=[8, 9]) == Config().replace(widths=(8, 9))

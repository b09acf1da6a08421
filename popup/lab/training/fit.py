"""A search from an attached network to its proof: made ready, searched, proved, each step from the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import LEARNED, Config
from popup.lab.data.dataset import Dataset, Split
from popup.lab.data.streamed import first_images
from popup.lab.measure import ACCURACY, Measure, fitted
from popup.lab.precision import Precision
from popup.lab.training.attachment import attach_config, order_if_asked
from popup.lab.training.bar import epoch_bar
from popup.lab.training.batches import Batches, Normalise
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.churn import Churn
from popup.lab.training.earlier import attached_by_fit, check_earlier, known, noted
from popup.lab.training.optimizers import optimizer_of
from popup.lab.training.ranks import Ranks
from popup.lab.training.splits import check_attached, check_network, check_precision
from popup.lab.training.state import Metrics, TrainingState
from popup.lab.training.stop import RunFailed
from popup.lab.training.temperature import Temperature
from popup.lab.training.training import evaluation_parts, load_batches, optimise
from popup.search.network import computing, is_attached, scores, search_of, unwrapped
from popup.search.plain import merge
from popup.search.reach import check_reached
from popup.search.tables import html_table
from popup.source.copying import deep_copy
from popup.source.frozen import written_by_freeze
from popup.source.modes import modes_kept
from popup.source.storable import refuse_unstorable
from popup.source.undo import all_or_nothing
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import Proof, contract_faults, prove
from popup.ticket.ticket import Ticket


@dataclass(frozen=True)
class Ready:
    """A search that can begin: what it could be refused for was looked at. `frozen`: hashes of what no step may change. `plain`:
    a copy from before it was attached, to prove the ticket on; None: it came attached, or another is built for that."""

    net: nn.Module  # attached
    config: Config
    batches: Batches
    test: Split
    precision: Precision
    frozen: dict[str, str]
    plain: nn.Module | None


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a run found: metrics by epoch, and the proof of the laws. The last epoch's accuracy is the result, and where
    labels are tokens its loss."""

    history: list[Metrics]
    proof: Proof
    precision: str  # fp32 or bf16
    compute: str    # how its layers computed, in words
    normalise: Normalise

    @property
    def test_accuracy(self) -> float:
        """Percent, of the last epoch. Of a language model there is none: `value` is what its `measure` says."""
        if self.measure is not ACCURACY:
            raise UsageError(f"a network that reads texts has no accuracy: outcome.value is its loss in{self.measure.unit}")
        return self.history[-1][ACCURACY.column]

    @property
    def measure(self) -> Measure:
        """What `value` is: accuracy, or bits a token."""
        return fitted(self.history[-1])

    @property
    def value(self) -> float:
        """What the search came to in the last epoch, on data that chose nothing."""
        return self.history[-1][self.measure.column]

    def __repr__(self) -> str:
        laws = "the proof holds" if self.proof.holds else "the proof is BROKEN"
        return (f"Outcome({self.measure.text(self.value)} after {self.history[-1]['epoch']} epochs in {self.precision}, computed "
                f"{self.compute}; {laws})")

    def _repr_html_(self) -> str:
        names = [name for name in ("epoch", "train_loss", "test_loss", self.measure.column) if name in self.history[-1]]
        rows = [[f"{row[name]:.4g}" for name in names] for row in self.history]
        return html_table(names, rows, repr(self))


def fit(net: nn.Module, train: Split, test: Split, config: Config | None = None,
        on_epoch: Callable[[Metrics], None] = lambda metrics: None, checkpoints: Checkpoints | None = None,
        ranks: Ranks | None = None) -> Outcome:
    """Search for a ticket in `net`, which is attached by `config` if it is not yet.

    `train`, `test`: (images [n, ...], labels int64 [n]), or of a language model (tokens int64 [n, context], for each the next
    one int64 [n, context]); uint8 images are normalised with the training set's channel statistics, others are used as they
    are. `on_epoch` gets each epoch's metrics: epoch, lr, train_loss, test_loss, test_accuracy (percent; of language models
    test_bits, a token), churn, never_selected. `checkpoints`: where an interrupted search goes on from. `ranks`: this
    process's place among several that search together. In a notebook a bar shows the epochs. Raises UsageError for data or
    a network that it cannot search with, RunFailed when the loss is not finite.

    A network that is refused is as it came (for its checkpoint or by torch.compile alone: attached, with its first scores). One
    whose search is broken off later (an interrupt, an `on_epoch` that raises, RunFailed) stays attached, with the scores of
    then: `popup.extract` is the ticket so far, the same call with its `checkpoints` goes on, and after `popup.detach(net)` fit
    begins anew. What came attached is searched on from the scores that it holds. A UsageError if these are not finite, if fit
    has begun that search and was broken off, and if `config` says another source or search: of a network that fit has attached
    any other, of one that you have attached what is not as usual (its seed is then that of the images' order). Modules are in
    the modes that they were in.
    """
    net, config, checkpoints, ranks = unwrapped(net), config or Config(), checkpoints or Checkpoints(), ranks or Ranks()
    _check_kinds(config, checkpoints)
    if is_attached(net):
        check_earlier(net, config, checkpoints.there(ranks))
    with modes_kept(net):
        ready = make_ready(net, train, test, config, ranks)
        if checkpoints.path is not None:
            checkpoints.of(config, Dataset("", 0, train, test).identity(), known(net, ready.plain), stays=True)
        with noted(net):
            with epoch_bar(config.training.epochs, on_epoch) as tell:
                history = search(ready, tell, checkpoints)
            return proved(ready, history, plain=ready.plain)


def _check_kinds(config: Any, checkpoints: Any) -> None:
    """A UsageError for a config or checkpoints that are something else, and for checkpoints without a place."""
    for name, value, kind, remedy in (("config", config, Config, "popup.Config.from_flat({'epochs': 10})"),
                                      ("checkpoints", checkpoints, Checkpoints, "popup.Checkpoints(path)")):
        if not isinstance(value, kind):
            raise UsageError(f"{name} is {value!r:.80}, not a {kind.__name__}: give {remedy}")
    checkpoints.check_path()


def make_ready(net: nn.Module, train: Split, test: Split, config: Config, ranks: Ranks) -> Ready:
    """The search of `config` in `net`, which is attached if it is not yet. A UsageError if it cannot be done; a network
    that came plain is then as it came."""
    net = unwrapped(net)
    check_precision(net)
    batches, test = load_batches(net, train, test, config, ranks)
    two = batches.normalise(first_images(batches.images, 2))
    layers = [layer.spec for layer in search_of(net).layers] if is_attached(net) else config.source.layers(net)
    check_network(merge(net) if is_attached(net) else net, layers, two, batches.labels, test[1])
    if is_attached(net):
        return _looked_at(net, config, batches, test, None)
    refuse_unstorable(net)
    plain = deep_copy(net)
    with all_or_nothing(net, written_by_freeze(net)):
        attach_config(net, config, train)
        attached_by_fit(net)
        check_reached(merge(net), layers, two)  # what holds a weight by itself computes with the old one from now on
        return _looked_at(net, config, batches, test, plain)


def _looked_at(net: nn.Module, config: Config, batches: Batches, test: Split, plain: nn.Module | None) -> Ready:
    """The search in an attached network that has been seen to compute with its layers. A UsageError if it cannot be trained."""
    two = batches.normalise(first_images(batches.images, 2))
    search_of(net).looked = True
    check_attached(net, two)
    precision = Precision.of(net, config.training.precision)
    order_if_asked(net, batches)  # which changes scores, so nothing is refused after it
    return Ready(net, config, batches, test, precision, frozen_hashes(net), plain)


def search(ready: Ready, on_epoch: Callable[[Metrics], None], checkpoints: Checkpoints) -> list[Metrics]:
    """Learn the scores, or go on from a checkpoint; returns the metrics of all epochs. The network is then the ticket."""
    net, method, settings = ready.net, search_of(ready.net).method, ready.config.training
    lr = settings.lr * method.rate
    temperature = Temperature(scores(net)[0].device, lr) if settings.temperature == LEARNED else None
    state = TrainingState(net, scores(net), optimizer_of(scores(net), settings, lr), ready.batches.steps, ready.precision,
                          Churn(net), ready.frozen, ready.batches.ranks, temperature=temperature)
    if not method.learns:
        settings = replace(settings, epochs=1, warmup=0.0)

    def looked_at(metrics: Metrics) -> None:
        _check_contract(net, metrics["epoch"])
        on_epoch(metrics)

    return optimise(state, ready.batches, ready.test, settings, lr, _evaluated, looked_at, checkpoints)


def _evaluated(net: nn.Module) -> nn.Module:
    """What an epoch's accuracy is of: a plain copy; where layers compute sparsely the network as it is, but for the last epoch,
    so that anybody who applies the ticket to a plain network repeats the accuracy exactly."""
    search = search_of(net)
    return net if any(layer.sparse for layer in search.layers) and search.progress < 1 else merge(net)


def _check_contract(net: nn.Module, epoch: int) -> None:
    """A RunFailed if a method trains, before the end, a network that no ticket of it can be. Looked for after the epochs 1, 2, 4,
    8 and so on, since it takes some selections; the end is the proof's."""
    search = search_of(net)
    if epoch & (epoch - 1) or search.progress == 1:
        return
    for name, words in contract_faults(search).items():
        raise RunFailed(f"method {search.settings.method} trains a network that no ticket of it can be: of {name} {words}")


def proved(ready: Ready, history: list[Metrics], ticket: Ticket | None = None, plain: nn.Module | None = None) -> Outcome:
    """The laws, checked on the network that was searched, and on `plain` (None: a copy of it) as the `ticket` that was saved
    (None: the one it holds now), in the precision that its accuracy was measured in."""
    size = evaluation_parts(ready.test[0])[0].stop  # as many as an evaluation takes at once
    probe = ready.batches.normalise(first_images(ready.test[0], size))

    def forward(net: nn.Module) -> torch.Tensor:
        with ready.precision.autocast():
            return net(ready.precision.inputs(probe.clone()))

    proof = prove(ready.net, ready.frozen, probe, ticket, plain, forward)
    return Outcome(history, proof, ready.precision.name, computing(ready.net), ready.batches.normalise)

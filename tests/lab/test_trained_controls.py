"""Controls that train the ticket's own weights, and those that prune the trained dense network at its counts."""

import numpy as np
import pytest
import torch

from models import MODELS
from popup import load
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.machine import Machine
from popup.lab.report.comparison import settings
from popup.lab.report.contrasts import weak_advantages
from popup.lab.report.results import read_directory
from popup.lab.report.summary import weak_table
from popup.lab.runs.cell import Cell
from popup.lab.runs.control_run import ready_control
from popup.lab.runs.control_training import finetuning
from popup.lab.runs.controls import CONTROLS, DENSE, control_config, needed
from popup.lab.runs.dense_weights import read_weights
from popup.lab.runs.flow import run
from popup.lab.runs.grid import plan
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.plain import make_plain
from popup.lab.runs.subnetwork import whole_ticket
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.stop import RunFailed

OWN = {"ticket_trained": "ticket", "shuffled_trained": "shuffled", "redrawn_trained": "redrawn"}
PRUNED = ["magnitude_trained", "magnitude_global_trained"]
CONFIG = Config.from_flat({"epochs": 1, "widths": (16, 12), "method": "signed", "k": 0.3, "weight_decay": 1e-3})


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """With the ticket of CONFIG, and the dense network."""
    made = Laboratory(MODELS, Machine("cpu", threads=1), tmp_path_factory.mktemp("runs"))
    run(made, CONFIG)
    run(made, control_config(CONFIG, DENSE))
    return made


def weights(laboratory, role):
    """The network of a control after its run, and its layers as it began."""
    config = control_config(CONFIG, role)
    ready = ready_control(laboratory, make_plain(laboratory, config))
    found = ready.find(laboratory.directory(config), lambda metrics: None, Checkpoints())
    return ready.plain.net, CONTROLS[role].build(ready.start), found


@pytest.mark.parametrize("role", OWN)
def test_a_tickets_weights_learn_at_its_edges_alone_and_begin_as_the_frozen_ones(role, laboratory, monkeypatch):
    laboratory.directory(control_config(CONFIG, role)).start()
    started = {}
    monkeypatch.setattr("popup.lab.runs.control_training.optimise", lambda state, *rest: started.update(
        {name: value.clone() for name, value in state.net.state_dict().items()}) or [{"epoch": 1}])
    weights(laboratory, role)
    monkeypatch.undo()
    net, layers, _ = weights(laboratory, role)
    ticket = load(laboratory.directory(CONFIG).ticket)
    frozen = CONTROLS[OWN[role]].build if OWN[role] in CONTROLS else whole_ticket
    config = control_config(CONFIG, role)
    for layer, other, own in zip(layers, frozen(ready_control(laboratory, make_plain(laboratory, config)).start), ticket.layers,
                                 strict=True):
        before = torch.zeros(layer.spec.entries)
        before[torch.from_numpy(other.edges)] = torch.from_numpy(other.values)
        assert torch.equal(started[layer.spec.name].flatten(), before), "it begins as what is evaluated frozen"
        after = net.get_parameter(layer.spec.name).detach().flatten()
        assert len(layer.edges) == own.kept and torch.equal(after != 0, before != 0) and not torch.equal(after, before)
    if role == "ticket_trained":
        assert all(torch.equal(started[name], tensor) for name, tensor in ticket.state_dict().items() if name.endswith("weight"))


def test_a_ticket_with_its_weights_trained_knows_more_than_the_ticket(laboratory):
    weights(laboratory, "ticket_trained")
    accuracy = run(laboratory, control_config(CONFIG, "ticket_trained"))["test_accuracy"]
    assert accuracy > run(laboratory, CONFIG)["test_accuracy"]


def dense_weights(laboratory):
    config = control_config(CONFIG, DENSE)
    return read_weights(laboratory.directory(config).weights, make_plain(laboratory, config).net)


def test_the_dense_networks_weights_are_kept_for_those_that_prune_it(laboratory):
    tensors = dense_weights(laboratory)
    net = make_plain(laboratory, CONFIG).net
    net.load_state_dict(tensors)
    data = laboratory.data(CONFIG)
    images = data.train[0].float()
    mean, deviation = images.mean(), images.std(unbiased=False)
    with torch.no_grad():
        right = net((data.test[0] - mean) / deviation).argmax(1) == data.test[1]
    recorded = laboratory.directory(control_config(CONFIG, DENSE)).result()["test_accuracy"]
    assert abs(100 * float(right.float().mean()) - recorded) < 0.3


@pytest.mark.parametrize("role", PRUNED)
def test_the_largest_weights_of_the_dense_network_are_kept(role, laboratory):
    laboratory.directory(control_config(CONFIG, role)).start()
    net, layers, found = weights(laboratory, role)
    dense, ticket = dense_weights(laboratory), load(laboratory.directory(CONFIG).ticket)
    assert [row.edges for row in found.densities] == [layer.spec.entries for layer in ticket.layers]
    sizes = [np.abs(dense[layer.spec.name].numpy().ravel()) for layer in ticket.layers]
    counts = [layer.kept for layer in ticket.layers]
    if role == "magnitude_trained":
        thresholds = [np.sort(size)[-count] for size, count in zip(sizes, counts, strict=True)]
    else:
        thresholds = [np.sort(np.concatenate(sizes))[-sum(counts)]] * len(counts)
    for layer, size, threshold in zip(layers, sizes, thresholds, strict=True):
        kept = np.flatnonzero(size >= threshold)
        assert np.array_equal(layer.edges, kept) and np.array_equal(layer.values, dense[layer.spec.name].numpy().ravel()[kept])
        after = net.get_parameter(layer.spec.name).detach().flatten()
        assert torch.equal(after.nonzero().flatten(), torch.from_numpy(kept)), "fine-tuned at these alone"
        assert not torch.equal(after[kept], torch.from_numpy(layer.values))
    assert sum(len(layer.edges) for layer in layers) == sum(counts)


def test_a_layer_of_small_weights_keeps_its_largest_one_globally(laboratory):
    config = control_config(CONFIG, "magnitude_global_trained")
    start = ready_control(laboratory, make_plain(laboratory, config)).start
    name = start.sources[-1].source.spec.name
    start.dense[name] = start.dense[name] * 1e-6
    layers = CONTROLS["magnitude_global_trained"].build(start)
    assert len(layers[-1].edges) == 1 and layers[-1].edges[0] == int(start.dense[name].abs().argmax())
    assert sum(len(layer.edges) for layer in layers) == sum(int(np.count_nonzero(codes)) for codes in start.codes)


def test_fine_tuning_takes_as_many_epochs_as_are_asked_for():
    training = CONFIG.replace(epochs=5, warmup=4.0).training
    assert (finetuning(training).epochs, finetuning(training).warmup) == (5, 4.0)
    short = finetuning(CONFIG.replace(epochs=5, warmup=4.0, finetune_epochs=2).training)
    assert (short.epochs, short.warmup, short.weight_lr) == (2, 2.0, training.weight_lr)


def test_one_dense_training_serves_all_tickets_of_a_seed():
    configs = [CONFIG.replace(k=k, er_p=p, seed=seed) for k in (0.1, 0.5) for p in (0.2, 1.0) for seed in (0, 1)]
    planned = plan(configs, PRUNED)
    roles = [config.task.role for config in planned]
    assert {role: roles.count(role) for role in set(roles)} == {"ticket": 8, DENSE: 2, **dict.fromkeys(PRUNED, 8)}
    assert max(place for place, role in enumerate(roles) if role == DENSE) < min(map(roles.index, PRUNED))
    one = control_config(configs[0].replace(finetune_epochs=3), PRUNED[0])
    assert needed(one) == [configs[0].replace(finetune_epochs=3), control_config(configs[0], DENSE)]


def test_runs_of_before_keep_their_names():
    assert Config().hash() == "d39ff252add1" != Config().replace(finetune_epochs=2).hash()


def test_a_control_waits_for_the_dense_network_and_says_where_its_weights_are_gone(laboratory, tmp_path):
    cell = Cell(tmp_path, control_config(CONFIG, PRUNED[0]))
    assert [other.config.task.role for other in cell.needs] == ["ticket", DENSE] and not cell.ready()
    for other in cell.needs:
        other.fail("never mind")
    assert cell.ready()
    config = control_config(CONFIG, DENSE)
    path, net = laboratory.directory(config).weights, make_plain(laboratory, config).net
    whole = path.read_bytes()
    for content, words in ((whole[:-1] + b"?", "is damaged"), (b"", "is no popup weights"), (None, "are not there")):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RunFailed, match=f"{words}.*: remove that directory"):
            read_weights(path, net)
        path.write_bytes(whole)
    with pytest.raises(RunFailed, match="of another network"):
        read_weights(path, make_plain(laboratory, config.replace(widths=(16, 8))).net)


def test_a_sweep_shows_them_and_says_whether_tickets_are_weak_ones(tmp_path, capsys):
    given = ["--epochs", "1", "--widths", "16", "--k", "0.3", "--seeds", "2", "--threads", "1", "--workers", "1", "--out",
             str(tmp_path)]
    assert main([*given, "--finetune-epochs", "2", "--controls", *OWN, *PRUNED], MODELS) == 0
    text = capsys.readouterr().out
    said = " ".join(text.split())
    assert "With its own weights trained, a ticket is " in said and "its mask shuffled, trained alike, in the one" in said
    runs = read_directory(tmp_path).runs
    assert {row.config.task.role: row.result["epochs"] for row in runs} == {
        "ticket": 1, DENSE: 1, **dict.fromkeys(OWN, 1), **dict.fromkeys(PRUNED, 2)}
    found = settings(runs)
    for one in weak_advantages(found):
        other = found[0].control_accuracies(one.role)
        gaps = [accuracy - other[seed] for seed, accuracy in found[0].control_accuracies("ticket_trained").items()]
        assert one.difference.value == pytest.approx(sum(gaps) / 2)
    _, header, rows = weak_table(found)
    assert header == ["shuffled, trained", "redrawn, trained", "seeds"] and len(rows) == 1
    assert all(f"{role}," in (tmp_path / "results.csv").read_text() for role in (*OWN, *PRUNED))
    assert "ticket, trained" in (tmp_path / "report.html").read_text()


def test_a_sweep_has_the_usual_controls_unasked_and_all_if_it_is_asked():
    def roles(*words):
        return parse(words, "", {}).output.roles(sweep=True)

    assert roles() == ["random", "shuffled", "redrawn", "source", "random_trained", "er_trained", DENSE]
    assert roles("--controls", "all") == list(CONTROLS)


def test_fine_tuning_that_nothing_does_is_told(capsys, tmp_path):
    given = ["--epochs", "1", "--widths", "8", "--finetune-epochs", "1", "--out", str(tmp_path)]
    assert main(given, MODELS) == 0
    assert "--finetune-epochs does nothing here" in capsys.readouterr().out

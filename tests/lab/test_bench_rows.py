"""The bench's rows of small networks, of wide ones at falling density, and of calls: what they measure is what they say."""

import json
import time
from functools import partial

import pytest
import torch
from torch import nn

from models import MODELS
from popup.lab.bench import bench
from popup.lab.bench.calls import count_calls
from popup.lab.bench.peers import PEERS, Peer, peer_step
from popup.lab.bench.small_networks import Small, threads, time_small
from popup.lab.bench.step_memory import peaks_of_steps
from popup.lab.bench.wide_networks import IMAGE, subject_makers, ticks, time_wide
from popup.lab.commands import bench_rows
from popup.lab.commands.bench_rows import builder_of
from popup.lab.commands.command import main

CPU = torch.device("cpu")
ARGUMENTS = ["--rounds", "1", "--largest", "0", "--no-subset-sums", "--no-sparse-inference", "--batch", "4", "--device", "cpu",
             "--model", "chain:flatten-linear", "--side", "4", "--precision", "fp32"]


class Counted(nn.Linear):
    """Counts the forward passes of all of them, and how many threads there were."""

    passes, heard = 0, set()

    def forward(self, x):
        Counted.passes += 1
        Counted.heard.add(torch.get_num_threads())
        return super().forward(x)


def counted(model, image):
    assert (model, image) == ("any", (1, 2, 2))
    return lambda: nn.Sequential(nn.Flatten(), Counted(4, 10))


def mlp(width):
    return builder_of(MODELS, IMAGE, "mlp", (width, width))


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_small_networks_are_timed_by_the_step_with_their_own_threads(monkeypatch, two_threads):
    """The clock of one thread is CPU time: here, how many forward passes there have been."""
    monkeypatch.setattr(Counted, "heard", set())
    monkeypatch.setattr(bench.time, "process_time", lambda: float(Counted.passes))
    [row] = time_small(counted, CPU, 2, networks=[Small("any", (1, 2, 2), 4, 1, 5)])
    assert [figure.name for figure in row.figures] == [
        "dense weight-training step", "popup, p = 0.2", "published edge-popup, equal precision"]
    assert [figure.seconds for figure in row.figures] == [1.0] * 3 and row.clock == "CPU"
    assert Counted.heard == {1} and torch.get_num_threads() == 2


def test_a_small_network_without_threads_of_its_own_is_timed_by_the_wall(monkeypatch, two_threads):
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(Counted.passes))
    [row] = time_small(counted, CPU, 1, networks=[Small("any", (1, 2, 2), 4, 0, 3)])
    assert row.clock == "wall" and row.figures[0].seconds == 1.0


def test_threads_come_back_after_an_error(two_threads):
    with pytest.raises(ValueError, match="stop"), threads(1):
        assert torch.get_num_threads() == 1
        raise ValueError("stop")
    assert torch.get_num_threads() == 2


def masked(linear, p):
    """What a peer could be: the weights that are left, and learn, as a dense matrix with zeros."""
    with torch.no_grad():
        linear.weight.mul_(torch.rand_like(linear.weight) < p)
    return linear


def test_wide_networks_are_measured_at_each_density_with_the_dense_step_first(monkeypatch):
    """How often it ticks is told beforehand; the dense network's memory, which no density changes, is measured once."""
    monkeypatch.setattr("popup.lab.bench.wide_networks.PEERS", (Peer("masks", "torch", "nothing", masked),))
    ticked, asked = [], []
    monkeypatch.setattr("popup.lab.bench.wide_networks.peaks_of_steps", lambda makers, narrow, tick: (
        [asked.append(make().name) or tick() for make in makers], list(range(7, 7 + len(makers))))[1])
    rows = list(time_wide(mlp, (16,), (0.5, 0.1), 2, lambda: ticked.append(1), batch=4))
    names = ["dense weight-training step", "popup, sparse by the rule", "popup, dense", "masks"]
    assert [(row.width, row.p, row.batch, row.clock) for row in rows] == [(16, 0.5, 4, "CPU"), (16, 0.1, 4, "CPU")]
    assert all([figure.name for figure in row.figures] == names and row.figures[0].ratio == 1 for row in rows)
    assert asked == [*names, *names[1:]] and [row.memory for row in rows] == [(7, 8, 9, 10), (7, 7, 8, 9)]
    assert len(ticked) == ticks((16,), (0.5, 0.1), 2)


def test_a_step_takes_memory_for_what_it_holds_and_not_for_what_was_before():
    """Bytes of the weights: a dense step holds them, their gradients and their momentum, popup on its edges little of that."""
    pytest.importorskip("numba")  # torch's kernels take more
    makers, narrow = (subject_makers(mlp(width), 0.02, 8, []) for width in (1024, 512))
    dense, sparse, masks = peaks_of_steps(makers, narrow)
    weights = 4 * (784 * 1024 + 1024 * 1024 + 1024 * 10)
    assert 2.8 * weights <= dense <= 3.5 * weights and sparse < dense / 4 and masks > weights


@pytest.mark.parametrize("peer", [pytest.param(peer, id=peer.name) for peer in PEERS])
def test_a_peer_trains_a_fraction_of_the_weights_of_every_linear_layer(peer):
    if peer.missing() is not None:
        pytest.skip(peer.missing())
    net = mlp(64)()
    step = peer_step(peer, lambda: net, torch.randn(16, *IMAGE), torch.arange(16) % 10, 0.1)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    step.step()
    entries = sum(parameter.numel() for parameter in before if parameter.numel() > 64)
    assert not any(isinstance(module, nn.Linear) for module in net.modules())
    assert 0.09 * (784 + 64) * 64 < entries < 0.14 * (784 + 64) * 64  # sparselab leaves room for a fifth more
    assert all((old != new).any() for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("peer", [pytest.param(peer, id=peer.name) for peer in PEERS])
def test_a_peers_gradients_are_right_in_later_networks_too(peer):
    """Where one before is gone, whose place in memory the next may have."""
    if peer.missing() is not None:
        pytest.skip(peer.missing())
    for p in (0.5, 0.2) * 20:
        layer, x = peer.layer(nn.Linear(48, 32), p), torch.randn(16, 48, requires_grad=True)
        eye = torch.eye(48)
        weight = (layer(eye) - layer(torch.zeros_like(eye))).detach().t()
        layer(x).sum().backward()
        assert torch.allclose(x.grad, weight.sum(0).expand(16, -1), atol=1e-5)
        assert abs(weight.count_nonzero().item() / weight.numel() - p) < 0.06


def test_a_peer_that_is_not_there_is_one_line():
    peer = Peer("some peer", "popup_has_no_such_peer", "pip install some-peer", masked)
    line = peer.missing()
    assert "\n" not in line and "some peer is not measured" in line and line.endswith("pip install some-peer")
    assert PEERS[0].missing() is None or PEERS[0].missing().endswith("pip install sparselab")


def test_calls_are_those_that_popup_adds():
    """Layers of one shape are asked together: three of them add fewer calls than three times one's."""
    def build(count):
        return nn.Sequential(nn.Flatten(), *(nn.Linear(12, 12) for _ in range(count)))

    one, three = (count_calls(partial(build, count), (3, 2, 2)) for count in (1, 3))
    assert (one.layers, three.layers) == (1, 3) and 0 < one.added < three.added < 3 * one.added
    assert one.dense < three.dense


def test_the_rows_are_printed_and_recorded(tmp_path, capsys, monkeypatch):
    missing = Peer("some peer", "popup_has_no_such_peer", "pip install some-peer", masked)
    monkeypatch.setattr("popup.lab.bench.wide_networks.PEERS", (missing,))
    monkeypatch.setattr(bench_rows, "PEERS", (missing,))
    monkeypatch.setattr(bench_rows, "NETWORKS", (Small("mlp", (1, 4, 4), 4, 1, 2), Small("small_conv", (1, 8, 8), 4, 0, 1)))
    monkeypatch.setattr(bench_rows, "WIDTHS", (32, 64))
    monkeypatch.setattr(bench_rows, "DENSITIES", (0.5, 0.1))
    assert main(["bench", *ARGUMENTS, "--out", str(tmp_path)], MODELS) == 0
    printed, record = capsys.readouterr().out, json.loads((tmp_path / "bench.json").read_text())
    assert [row["network"]["model"] for row in record["small_networks"]] == ["mlp", "small_conv"]
    assert [(row["width"], row["p"]) for row in record["wide_networks"]] == [(32, 0.5), (32, 0.1), (64, 0.5), (64, 0.1)]
    assert all(len(row["memory"]) == len(row["figures"]) == 3 for row in record["wide_networks"])
    assert record["calls"]["model"] == "resnet18" and record["calls"]["layers"] == 21 and record["calls"]["added"] <= 150
    for words in ("mlp at 1x4x4, batch 4, one thread", "mlp 32-32 at 1x28x28, batch 128", "mlp 64-64 at 1x28x28",
                  f"adds {record['calls']['added']} for", "pip install some-peer"):
        assert words in printed, words


def test_wide_networks_are_left_out_on_a_gpu(capsys):
    assert bench_rows.wide_networks(MODELS, 1, torch.device("cuda")) == []
    assert "left out" in capsys.readouterr().out


def test_the_least_disturbed_clock_counts_one_thread_alone(monkeypatch):
    assert bench.least_disturbed(CPU) is time.process_time
    assert bench.least_disturbed(torch.device("cuda")) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert bench.least_disturbed(CPU) is None

"""The optimisers of the scores: each against its formula, in a run that keeps the laws, and with the controls on SGD."""

import numpy as np
import pytest
import torch
from torch import nn

import popup
from models import MODELS
from popup.lab import config as configs
from popup.lab.config import Config, TrainingSettings
from popup.lab.data.datasets import DATASETS
from popup.lab.runs.controls import control_config
from popup.lab.training import fit, training
from popup.lab.training.optimizers import OPTIMIZERS, SETTLE_EVERY, SMALLEST, optimizer_of, settle, sgd

RATE, MOMENTUM, DECAY = 0.01, 0.8, 0.1
GRADIENTS = np.random.default_rng(0).normal(size=(4, 5))  # [steps, scores]
START = np.array([1.0, -1.0, 0.5, 0.0, 2.0])


def by_sgd(scores):
    velocity = 0
    for gradient in GRADIENTS:
        velocity = MOMENTUM * velocity + gradient + DECAY * scores
        scores = scores - RATE * velocity
    return scores


def by_adam(scores):
    first = second = 0
    for step, gradient in enumerate(GRADIENTS, 1):
        first, second = MOMENTUM * first + (1 - MOMENTUM) * gradient, 0.999 * second + 0.001 * gradient**2
        ratio = first / (1 - MOMENTUM**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        scores = scores * (1 - RATE * DECAY) - RATE * ratio
    return scores


def by_sign(scores):
    mean = 0
    for gradient in GRADIENTS:
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        scores = scores - RATE * (np.sign(mean) + DECAY * scores)
    return scores


FORMULAS = {"sgd": by_sgd, "adam": by_adam, "sign": by_sign}


def test_the_command_line_names_every_optimiser():
    assert configs.OPTIMIZERS == tuple(OPTIMIZERS) == tuple(FORMULAS)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0), (0.8, 0.01), (0.0, 0.1)])
def test_sgd_is_torchs_fused_one_bit_for_bit_and_remembers_under_its_names(momentum, decay):
    generator = torch.Generator().manual_seed(0)
    ours, torchs = ([nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(size))) for size in (3, 100, 777)]
                    for _ in range(2))
    optimizer = sgd(ours, TrainingSettings(momentum=momentum, weight_decay=decay), RATE)
    reference = torch.optim.SGD(torchs, lr=RATE, momentum=momentum, weight_decay=decay, fused=True)
    for step in range(20):
        for mine, other in zip(ours, torchs, strict=True):
            mine.grad = None if len(mine) == 3 else torch.randn(len(mine), generator=generator)  # a layer that is not reached
            other.grad = None if mine.grad is None else mine.grad.clone()
        for group in (*optimizer.param_groups, *reference.param_groups):
            group["lr"] = RATE * (1 + step)
        optimizer.step()
        reference.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, torchs, strict=True))
    for mine, other in zip(ours[1:], torchs[1:], strict=True):
        kept = reference.state[other].get("momentum_buffer")
        assert optimizer.state[mine].keys() == ({"momentum_buffer"} if momentum else set())
        assert kept is None or torch.equal(optimizer.state[mine]["momentum_buffer"], kept)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_is_its_formula(name):
    scores = nn.Parameter(torch.tensor(START, dtype=torch.float32))
    settings = TrainingSettings(optimizer=name, momentum=MOMENTUM, weight_decay=DECAY)
    optimizer = optimizer_of([scores], settings, RATE)
    for gradient in GRADIENTS:
        scores.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    assert np.allclose(scores.detach().numpy(), FORMULAS[name](START), atol=1e-5)


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.1), ("adam", 0.003), ("sign", 0.001)])
def test_each_learns_within_the_laws(name, lr):
    digits = DATASETS["digits"]()
    config = Config.from_flat({"epochs": 6, "widths": (64,), "er_p": 0.5, "optimizer": name, "lr": lr})
    outcome = popup.fit(MODELS["mlp"](digits.image, 10, (64,)), digits.train, digits.test, config)
    assert outcome.proof.holds and outcome.test_accuracy > 75


def test_controls_that_train_weights_are_the_same_run_under_any():
    for role in ("er_trained", "dense_trained"):
        for other in (Config().replace(optimizer="adam"), Config().replace(compute="dense")):
            assert control_config(Config(), role) == control_config(other, role)


def test_a_field_that_came_later_changes_no_name_of_before():
    assert Config().replace(compute="dense").hash() == "debfdb2d0783"  # as it was without --optimizer and --compute
    assert Config().replace(optimizer="adam").hash() != Config().hash()
    assert Config.from_record(Config().replace(optimizer="adam").record()).training.optimizer == "adam"
    before = Config().record()
    del before["training"]["optimizer"], before["training"]["compute"]
    assert Config.from_record(before).hash() == "debfdb2d0783" and Config().hash() != "debfdb2d0783"


class Dying(nn.Module):
    """Units of which half are dead after some steps: no gradient comes to their edges from then on."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return x * (torch.arange(x.shape[1]) % 2) if self.steps > 8 else x


def momentum_after(monkeypatch, threads, settled, **fields):
    """(scores, momentum, momentum of the dead units' edges) of a first layer of 65,536 edges, which 2 threads share, after 240
    steps in epochs of 10."""
    made = []
    monkeypatch.setattr(fit, "optimizer_of", lambda *given: made.append(optimizer_of(*given)) or made[0])
    if not settled:
        monkeypatch.setattr(training, "settle", lambda optimizer: None)
    digits = DATASETS["digits"]()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1024), nn.ReLU(), Dying(), nn.Linear(1024, 10))
    config = Config.from_flat({"er_p": 1.0, "epochs": 24, "momentum": 0.6, **fields})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        popup.fit(net, tuple(part[:320] for part in digits.train), digits.test, config)
    finally:
        torch.set_num_threads(before)
        monkeypatch.undo()
    scores, state = made[0].param_groups[0]["params"][0].detach(), next(iter(made[0].state.values()))
    momentum = state.get("momentum_buffer", state.get("exp_avg"))
    return scores, momentum, momentum.view(1024, 64)[::2]


def denormal(tensor):
    return int(((tensor != 0) & (tensor.abs() < SMALLEST)).sum())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.1), ("adam", 0.003)])
def test_the_momentum_of_dead_units_comes_to_nothing_and_no_score_is_another(name, lr, threads, monkeypatch):
    scores, momentum, dead = momentum_after(monkeypatch, threads, True, optimizer=name, lr=lr)
    assert not dead.any() and momentum.any()
    others, _, stuck = momentum_after(monkeypatch, threads, False, optimizer=name, lr=lr)
    assert denormal(stuck) > stuck.numel() / 2, "torch's optimisers have come to drop it by themselves"
    assert torch.equal(scores.view(torch.int32), others.view(torch.int32))


@pytest.mark.parametrize("momentum", [0.9, 0.6, 0.5, 0.4])
def test_steps_by_the_sign_of_a_small_momentum_go_on(momentum, monkeypatch):
    """Of 0.9 the 240 steps are too few for the momentum to become so small; of 0.5 and less it comes to 0 by itself."""
    fields = {"optimizer": "sign", "lr": 0.001, "momentum": momentum}
    scores, _, dead = momentum_after(monkeypatch, 1, True, **fields)
    others, _, stuck = momentum_after(monkeypatch, 1, False, **fields)
    assert not denormal(dead) and torch.equal(scores, others) and torch.equal(dead.sign(), stuck.sign())
    assert momentum != 0.6 or denormal(stuck) > stuck.numel() / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_that_is_normal_is_settled(name):
    kept = torch.tensor([1.0, -2 * SMALLEST, 1e-30, 0.0, float("nan"), float("inf")])
    parameter = nn.Parameter(torch.zeros(6))
    optimizer = optimizer_of([parameter], TrainingSettings(optimizer=name), RATE)
    parameter.grad = torch.ones(6)
    optimizer.step()
    for tensor in optimizer.state[parameter].values():
        if tensor.shape:
            tensor.copy_(kept)
    settle(optimizer)
    for tensor in optimizer.state[parameter].values():
        assert not tensor.shape or torch.equal(tensor.view(torch.int32), kept.view(torch.int32))


def test_a_momentum_that_is_held_stays_normal_up_to_the_next_time():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = optimizer_of([parameter], TrainingSettings(optimizer="sign", momentum=0.9), RATE)
    parameter.grad = torch.tensor([1e-38, -1e-38])
    optimizer.step()
    parameter.grad.zero_()
    for _ in range(3):
        settle(optimizer)
        for _ in range(SETTLE_EVERY - 1):
            optimizer.step()
        mean = optimizer.state[parameter]["momentum_buffer"]
        assert not denormal(mean) and mean.sign().tolist() == [1, -1] and mean.abs().max() < 1e-34
        optimizer.step()

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
from popup.lab.training.optimizers import OPTIMIZERS, optimizer_of, sgd

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
        assert control_config(Config(), role) == control_config(Config().replace(optimizer="adam"), role)


def test_a_field_that_came_later_changes_no_name_of_before():
    assert Config().hash() == "debfdb2d0783"  # as it was without --optimizer
    assert Config().replace(optimizer="adam").hash() != Config().hash()
    assert Config.from_record(Config().replace(optimizer="adam").record()).training.optimizer == "adam"

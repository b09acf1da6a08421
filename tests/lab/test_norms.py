"""Norms while they are trained are given back as they were, whatever ends the training."""

import copy

import pytest
import torch
from torch import nn

import popup
from popup.lab.precision import Precision
from popup.lab.training.norms import synchronised
from popup.lab.training.ranks import Ranks

GENERATOR = torch.Generator().manual_seed(0)
SPLIT = torch.randn(96, 8, generator=GENERATOR), torch.randint(0, 3, (96,), generator=GENERATOR)
CONFIG = popup.Config().replace(epochs=3)


def attached():
    torch.manual_seed(0)
    return popup.attach(nn.Sequential(nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3)), er_p=0.2)


def test_an_interrupt_while_statistics_are_refreshed_leaves_norms_as_they_were(monkeypatch):
    net, fresh, real = attached(), attached(), Precision.inputs
    state, passes = copy.deepcopy(net.state_dict()), []

    def inputs(precision, images):
        if net[1].momentum is None:  # statistics are averaged
            passes.append(images)
        if len(passes) == 2:
            raise KeyboardInterrupt
        return real(precision, images)

    with monkeypatch.context() as patched:
        patched.setattr(Precision, "inputs", inputs)
        with pytest.raises(KeyboardInterrupt):
            popup.fit(net, SPLIT, SPLIT, CONFIG)
    assert net[1].momentum == 0.1
    assert net[1].num_batches_tracked == 9  # the steps of training, and none of the average
    net.load_state_dict(state)
    found, wanted = ([row["test_loss"] for row in popup.fit(one, SPLIT, SPLIT, CONFIG).history] for one in (net, fresh))
    assert found == wanted


def test_a_norm_that_was_synchronised_before_keeps_its_group():
    net, group = nn.Sequential(nn.BatchNorm1d(4), nn.SyncBatchNorm(4)), object()
    net[1].process_group = group
    kinds = [type(norm) for norm in net]
    with pytest.raises(KeyboardInterrupt), synchronised(net, Ranks(0, 2), True):
        assert all(norm.process_group is None for norm in net)
        raise KeyboardInterrupt
    assert [type(norm) for norm in net] == kinds
    assert net[1].process_group is group and not hasattr(net[0], "process_group")


class Activated(nn.BatchNorm1d):
    """As timm's, with more in its forward than a norm."""

    def forward(self, inputs):
        return super().forward(inputs).relu()


def test_a_norm_that_does_more_than_a_norm_is_synchronised_by_nobody():
    net = nn.Sequential(nn.BatchNorm1d(4), Activated(4))
    with pytest.raises(popup.UsageError, match=r"1 \(Activated\) is .* --no-sync-norm"), synchronised(net, Ranks(0, 2), True):
        pass
    assert [type(norm) for norm in net] == [nn.BatchNorm1d, Activated]
    for ranks, wanted in ((Ranks(0, 2), False), (Ranks(0, 1), True)):
        with synchronised(net, ranks, wanted):
            assert type(net[1]) is Activated

"""A ticket applied to networks whose state_dict is not simply their parameters and buffers: filled, or refused by name."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from popup import UsageError, attach, extract, load, register
from popup.source import maskable


class Copying(nn.Sequential):
    """Whose checkpoints lie on the CPU."""

    def state_dict(self, *arguments, **options):
        return {name: tensor.detach().cpu().clone() for name, tensor in super().state_dict(*arguments, **options).items()}


def plain(kind=nn.Sequential):
    return kind(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("options", [{}, {"sparse": True}, {"trainable": True}])
def test_a_network_whose_state_is_copies_is_filled(options):
    net = attach(plain(Copying), er_p=0.5)
    net(torch.randn(9, 6))
    ticket, x = extract(net), torch.randn(4, 6)
    torch.testing.assert_close(ticket.apply(plain(Copying), **options).eval()(x), net.eval()(x))


class Counting(nn.Module):
    """A part whose state is a tensor that it makes anew."""

    seen = 0

    def get_extra_state(self):
        return torch.tensor(self.seen)

    def set_extra_state(self, state):
        self.seen = int(state)

    def forward(self, x):
        self.seen += len(x) * self.training
        return x


def test_a_part_that_makes_its_state_anew_is_given_it(tmp_path):
    net = attach(nn.Sequential(nn.Linear(6, 3), Counting()), er_p=0.5)
    net(torch.ones(7, 6))
    extract(net).save(tmp_path / "ticket.safetensors")
    other = load(tmp_path / "ticket.safetensors").apply(nn.Sequential(nn.Linear(6, 3), Counting()))
    assert other[1].seen == net[1].seen > 0


def test_a_state_that_is_of_no_tensor_cannot_be_written():
    class Adding(nn.Sequential):
        def state_dict(self, *arguments, **options):
            return super().state_dict(*arguments, **options) | {"made": torch.ones(2)}

    ticket = extract(attach(Adding(nn.Linear(6, 3)), er_p=0.5))
    with pytest.raises(UsageError, match="made is no parameter or buffer of Adding, whose state_dict makes it"):
        ticket.apply(Adding(nn.Linear(6, 3)))


def test_a_network_whose_state_has_other_names_is_refused_before_its_search():
    """Its ticket fitted no network, wrapped or not."""
    net = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 3))
    apply_activation_checkpointing(net, check_fn=lambda module: isinstance(module, nn.Sequential) and len(module) == 2
                                   and isinstance(module[1], nn.ReLU))
    with pytest.raises(UsageError, match=r"^0\._checkpoint_wrapped_module\.0\.weight is not in the network's state_dict by that"):
        attach(net, er_p=0.5)


class Deep(nn.Module):
    def __init__(self, sides):
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(sides)), nn.Parameter(torch.zeros(1, 1, 1, 1, 1, 1, 3))
        self.nothing = nn.Module()
        self.nothing.bias = nn.Parameter(torch.zeros(0))

    def forward(self, x):
        return x @ self.kernel.flatten(0, -3)[0].T


def test_tensors_of_many_dimensions_or_none_are_in_a_ticket_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(maskable, "KINDS", list(maskable.KINDS))
    register(Deep, "copies copies copies copies out in", weight="kernel")
    net = attach(nn.Sequential(Deep((2, 1, 2, 1, 4, 5)), nn.Linear(4, 2)), er_p=0.5)
    extract(net).save(tmp_path / "ticket.safetensors")
    fresh = load(tmp_path / "ticket.safetensors").apply(nn.Sequential(Deep((2, 1, 2, 1, 4, 5)), nn.Linear(4, 2)))
    assert torch.equal(fresh[0].kernel, net[0].kernel) and fresh[0].kernel.dim() == 6
    register(Deep, " ".join(["copies"] * 15 + ["out", "in"]), weight="kernel")
    with pytest.raises(UsageError, match=r"^0\.kernel has 17 dimensions, of which a ticket can hold 16"):
        attach(nn.Sequential(Deep((1,) * 15 + (4, 5)), nn.Linear(4, 2)), er_p=0.5)


def test_layers_made_in_inference_mode_pass_gradients_on_later():
    ticket = extract(attach(plain(), er_p=0.5))
    net, x = plain(), torch.randn(2, 6, requires_grad=True)
    with torch.inference_mode():
        ticket.apply(net, sparse=True)
    net.eval()(x).sum().backward()
    assert bool(x.grad.any())

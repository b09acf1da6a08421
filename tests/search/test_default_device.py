"""Where new tensors are made elsewhere unasked (torch.set_default_device), an attached network is what it is anyhow. "meta"
stands for a GPU: what was made there and ought to be here would have no values."""

import copy

import pytest
import torch
from torch import nn

import popup
from popup.search.methods import METHODS


def plain(dtype=torch.float32):
    return nn.Sequential(nn.Conv2d(3, 8, 3, device="cpu", dtype=dtype), nn.BatchNorm2d(8, device="cpu"), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * 16, 300, device="cpu", dtype=dtype), nn.ReLU(), nn.Linear(300, 5, device="cpu"))


def searched(net, method, x):
    """A step of a search, its gradients and its ticket."""
    popup.attach(net, er_p=0.2, search=popup.SearchSettings(method, "global", anneal="cubic"))
    torch.manual_seed(3)  # some methods draw
    net(x).square().sum().backward()
    popup.advance(net, 0.7)
    return [score.grad for score in popup.scores(net)], popup.extract(net)


@pytest.mark.parametrize("method", METHODS)
def test_a_search_and_its_ticket_are_the_same(method, tmp_path):
    x, here, there = torch.randn(4, 3, 6, 6), plain(), plain()
    gradients, ticket = searched(here, method, x)
    fresh = [plain() for _ in range(3)]
    with torch.device("meta"):
        found, other = searched(there, method, x)
        other.save(tmp_path / "ticket.safetensors")
        read = popup.load(tmp_path / "ticket.safetensors")
        assert popup.verify(read).holds and len(popup.densities(there)) == 3
        outputs = [read.apply(fresh[0])(x), read.apply(fresh[1], sparse=True)(x), popup.merge(there)(x)]
        read.apply(fresh[2], trainable=True)(x).sum().backward()
    assert [one if one is None else one.tolist() for one in gradients] == [one if one is None else one.tolist() for one in found]
    assert torch.equal(outputs[0], popup.merge(here)(x)) and torch.equal(outputs[2], outputs[0])
    torch.testing.assert_close(outputs[1], outputs[0])
    ticket.save(tmp_path / "here.safetensors")
    assert (tmp_path / "here.safetensors").read_bytes() == (tmp_path / "ticket.safetensors").read_bytes()


def test_what_a_file_can_hold_does_not_hang_on_where_it_was_first_tried():
    with torch.device("meta"):
        popup.attach(copy.deepcopy(plain()), er_p=0.5)
        popup.attach(nn.Linear(4, 3, dtype=torch.bfloat16, device="cpu"), er_p=0.5)
    popup.attach(nn.Linear(4, 3, dtype=torch.bfloat16), er_p=0.5)

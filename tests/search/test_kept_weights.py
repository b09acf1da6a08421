"""The dense weights that a search keeps from pass to pass: beside other threads, after an interrupt, and after a refusal."""

import contextlib
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import UsageError, advance, attach, detach, extract, scores
from popup.search.cached_weight import CachedWeight
from popup.search.edge_group import EdgeGroup
from popup.search.network import search_of

X = torch.randn(32, 20, generator=torch.Generator().manual_seed(0))


def trained(steps=3, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3))
    attach(net, er_p=0.5, k=0.5, **options, compute="dense")
    for _ in range(steps):
        step(net)
    return net


def step(net):
    """Scores move so far that other edges are kept."""
    found = torch.autograd.grad(F.cross_entropy(net(X), torch.arange(32) % 3), scores(net))
    with torch.no_grad():
        for score, gradient in zip(scores(net), found, strict=True):
            score.sub_(100 * gradient)


def fresh(net, **options):
    """Another network that is where `net` is."""
    other = trained(0, **options)
    other.load_state_dict(net.state_dict())
    return other


def evaluate(net):
    with torch.no_grad():
        return net(X)


def test_who_evaluates_while_they_are_written_waits(monkeypatch):
    """The other thread comes when they have been written, and it is not yet noted what they show."""
    net, found, write = trained(), [], CachedWeight.change

    def change(self, *others):
        write(self, *others)
        monkeypatch.undo()
        found.append(threading.Thread(target=lambda: found.append(evaluate(net))))
        found[0].start()
        found[0].join(0.2)

    monkeypatch.setattr(CachedWeight, "change", change)
    net(X)
    found[0].join(20)
    assert torch.equal(found[1], evaluate(fresh(net)))
    extract(net)


def test_a_pass_whose_weights_are_handed_out_keeps_them(monkeypatch):
    """The other thread's pass, of other gates, comes before it is noted that the first uses them."""
    net, others, hand_out = trained(method="sampled"), [], EdgeGroup.weights
    torch.manual_seed(3)
    alone = net(X).detach()
    net(X)

    def weights(self, *given):
        found = hand_out(self, *given)
        monkeypatch.undo()
        others.append(threading.Thread(target=net, args=(X,)))
        others[0].start()
        others[0].join(0.2)
        return found

    monkeypatch.setattr(EdgeGroup, "weights", weights)
    torch.manual_seed(3)
    y = net(X)
    others[0].join(20)
    assert torch.equal(y, alone)


@pytest.mark.parametrize("method", ["edge_popup", "sampled", "signed"])
@pytest.mark.parametrize("where", ["change", "renew", "show"])
def test_an_interrupt_leaves_none_that_show_something_else(method, where, monkeypatch):
    """Between what is written and the note of it; then the state of before is loaded again."""
    net = trained(method=method)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    step(net)
    usual = getattr(CachedWeight, where)

    def interrupted(self, *given):
        usual(self, *given)
        raise KeyboardInterrupt

    waits = net(X) if where == "renew" else None  # for its backward pass: the next one's are others
    monkeypatch.setattr(CachedWeight, where, interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        net(X)
    monkeypatch.undo()
    del waits
    evaluate(net)
    net.load_state_dict(before)
    for seed in range(2):
        found = []
        for one in (net, fresh(net, method=method)):
            torch.manual_seed(seed)
            found.append(one(X))
        assert torch.equal(*found)
        step(net)
    extract(net)


class Centred(nn.Module):
    """Computes with another weight than its layer's."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(20, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(F.linear(x, self.first.weight - self.first.weight.mean(1, keepdim=True)))


def test_what_is_refused_once_is_refused_again():
    net = attach(Centred(), er_p=0.5, k=0.5)
    for _ in range(3):
        with pytest.raises(UsageError, match=r"^first\.weight reaches its product"):
            net(X)


def test_who_has_written_to_a_weight_is_refused_until_a_state_of_before_is_loaded():
    net = trained()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    handle = net[0].register_forward_pre_hook(lambda module, inputs: module.weight.data.mul_(2) is None or None)
    net(X)
    handle.remove()
    for ask in (extract, extract, evaluate, step, extract):
        with pytest.raises(UsageError, match=r"^0\.weight was written to.* load a state_dict of before it"):
            ask(net)
    net.load_state_dict({}, strict=False)
    with pytest.raises(UsageError, match=r"^0\.weight was written to"):
        extract(net)
    net.load_state_dict(before)
    assert torch.equal(evaluate(net), extract(net).apply(nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3)))(X))


def test_a_step_that_fails_is_no_step(monkeypatch):
    net = trained(method="iterand")
    search = search_of(net)
    monkeypatch.setattr(type(search.method), "after_step", lambda self, search: 1 / 0)
    was = search.steps, search.before, search.progress
    with pytest.raises(ZeroDivisionError):
        advance(net, 0.5)
    assert (search.steps, search.before, search.progress) == was


def test_nothing_is_attached_or_detached_in_inference_mode():
    with torch.inference_mode():
        with pytest.raises(UsageError, match="inference_mode"):
            trained()
        inside = nn.Linear(4, 3)
    with pytest.raises(UsageError, match=r"^weight was made in torch\.inference_mode"):
        attach(inside, er_p=0.5, k=0.5)
    net = trained()
    with torch.inference_mode(), pytest.raises(UsageError, match="inference_mode"):
        detach(net)
    step(net)


def test_what_a_thread_left_that_has_ended_is_dropped():
    net = trained()

    def interrupted(module, inputs):
        raise KeyboardInterrupt

    handle = net[2].register_forward_pre_hook(interrupted)

    def leaves():
        with pytest.raises(KeyboardInterrupt):
            net(X)

    thread = threading.Thread(target=leaves)
    thread.start()
    thread.join()
    handle.remove()
    assert len(search_of(net).passes._of) == 1
    evaluate(net)
    assert not search_of(net).passes._of

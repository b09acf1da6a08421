"""Training loops of one's own: several losses, hooks, threads, evaluation mode, second derivatives; each as in a plain network
whose weights are masked by hand, or told."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from popup import Recipe, SearchSettings, UsageError, advance, attach, scores
from popup.search.network import search_of
from popup.search.passes import Pass, Passes, _runs

COMPUTES = ["dense", "sparse"]
ONE, OTHER = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6) % 3


def made(kind, compute="dense", k=0.5, **settings):
    torch.manual_seed(0)
    return attach(kind(), Recipe(er_p=0.5, k=k), SearchSettings(**settings), compute=compute)


def by_hand(net):
    """Each layer's weight now, as a leaf whose gradient is that of the weight, and what its scores' gradient follows from."""
    search = search_of(net)
    return [layer.dense(codes).requires_grad_() for layer, codes in zip(search.layers, search.codes(), strict=True)]


def assert_straight_through(net, weights):
    """Scores have the gradient of their edges' weights, times these, times the sign by which |s| ranks (edge_popup)."""
    search = search_of(net)
    for layer, weight, score in zip(search.layers, weights, scores(net), strict=True):
        source = layer.source()
        wanted = weight.grad.flatten()[torch.from_numpy(source.edges).long()] * torch.from_numpy(source.values) * score.sign()
        torch.testing.assert_close(score.grad, wanted, rtol=1e-4, atol=1e-6)


class Probed(nn.Module):
    """A head, and a probe of what is detached."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.probe = nn.Linear(8, 9), nn.Linear(9, 3), nn.Linear(9, 3)

    def forward(self, x):
        h = self.body(x).relu()
        return self.head(h), self.probe(h.detach())


@pytest.mark.parametrize("compute", COMPUTES)
def test_losses_that_share_no_graph_each_have_a_backward_pass(compute):
    net = made(Probed, compute)
    for loss in net(ONE):
        loss.square().sum().backward()
    weights = by_hand(net)
    h = F.linear(ONE, weights[0]).relu()
    (F.linear(h, weights[1]).square().sum() + F.linear(h.detach(), weights[2]).square().sum()).backward()
    assert_straight_through(net, weights)


class Greedy(nn.Module):
    """Each layer learns by a loss of its own, within forward."""

    def __init__(self):
        super().__init__()
        self.layers, self.heads = (nn.ModuleList([nn.Linear(8, size) for _ in range(2)]) for size in (8, 3))

    def forward(self, x):
        for layer, head in zip(self.layers, self.heads, strict=True):
            x = layer(x).relu()
            F.cross_entropy(head(x), LABELS).backward()
            x = x.detach()
        return x


@pytest.mark.parametrize("compute", COMPUTES)
def test_layers_that_learn_within_forward(compute):
    net = made(Greedy, compute)
    net(ONE)
    (first, second, *heads), x = by_hand(net), ONE
    for weight, head in zip((first, second), heads, strict=True):
        x = F.linear(x, weight).relu()
        F.cross_entropy(F.linear(x, head), LABELS).backward()
        x = x.detach()
    assert_straight_through(net, [first, second, *heads])


def test_an_older_graph_has_its_own_weights_though_a_part_of_it_was_gone_through():
    net = made(Probed)
    inputs = ONE.clone().requires_grad_()
    output, probe = net(inputs)
    weights = by_hand(net)
    probe.square().sum().backward()
    with torch.no_grad():
        for score in scores(net):
            score.copy_(torch.randn_like(score))
    net(OTHER)  # writes the changed edges
    mine = ONE.clone().requires_grad_()
    wanted, = torch.autograd.grad(F.linear(F.linear(mine, weights[0]).relu(), weights[1]).sum(), mine)
    found, = torch.autograd.grad(output.sum(), inputs)
    torch.testing.assert_close(found, wanted)


def chain():
    return nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))


def test_kept_weights_are_written_to_again_once_their_graph_is_gone():
    """Also while the loss of the pass before is there, as in any loop."""
    net, memories = made(chain), set()
    for _ in range(4):
        loss = net(ONE.clone().requires_grad_()).square().sum()
        memories.add(search_of(net).groups[0].cached_weight.memory.data_ptr())
        loss.backward()
        with torch.no_grad():
            for score in scores(net):
                score.copy_(torch.randn_like(score))
    assert len(memories) == 1


def test_hooks_see_the_passes_that_were_made_and_no_other():
    net, features = made(chain), []
    net[1].register_forward_hook(lambda module, inputs, output: features.append(output))
    net[2].register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    net(ONE)
    assert len(features) == 2 and all(feature.requires_grad for feature in features)


class Shared(nn.ReLU):
    """Of which each copy is itself."""

    def __deepcopy__(self, memo):
        return self


def test_a_module_that_is_in_each_copy_keeps_its_hooks():
    net, features = made(lambda: nn.Sequential(nn.Linear(8, 9), Shared(), nn.Linear(9, 3))), []
    net[1].register_forward_hook(lambda module, inputs, output: features.append(output))
    for _ in range(2):
        features.clear()
        net(ONE)
        assert features and features[-1].requires_grad


def test_a_gradient_of_a_pass_in_evaluation_mode_is_warned_of_where_training_uses_other_gates():
    net = made(chain, k=0.2, anneal="cubic")
    advance(net, 0.1)
    with pytest.warns(UserWarning, match=r"scores get the gradient of a pass in evaluation mode.*net\.train\(\)"):
        net.eval()(ONE).sum().backward()
    torch.autograd.grad(net(inputs := ONE.clone().requires_grad_()).sum(), inputs)  # of inputs it is what was asked for
    net.train()(ONE).sum().backward()
    made(chain, k=0.2).eval()(ONE).sum().backward()  # which trains by the ticket anyhow


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("er_p", [0.5, 1.0])
def test_scores_gradients_are_differentiated_no_further(er_p, compute):
    net = attach(chain(), er_p=er_p, k=0.5, compute=compute)
    found = torch.autograd.grad(net(ONE).square().sum(), scores(net), create_graph=True)
    with pytest.raises(UsageError, match=r"has scores, whose gradient goes straight through .* no derivative"):
        sum(part.square().sum() for part in found).backward()


def test_a_penalty_on_gradients_of_inputs_is_right():
    net, inputs = made(chain), ONE.clone().requires_grad_()
    slope, = torch.autograd.grad(net(inputs).square().sum(), inputs, create_graph=True)
    slope.square().sum().backward()
    weights, mine = by_hand(net), ONE.clone().requires_grad_()
    loss = F.linear(F.linear(mine, weights[0]).relu(), weights[1]).square().sum()
    torch.autograd.grad(loss, mine, create_graph=True)[0].square().sum().backward()
    assert_straight_through(net, weights)


class Checkpointed(nn.Module):
    """Layers one after the other, each inside none, one or two checkpoints, reentrant or not."""

    def __init__(self, outer=None, inner=None, **options):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.outer, self.inner, self.options = outer, inner, options

    def forward(self, x):
        for layer in self.layers:
            part = partial(lambda layer, x: layer(x).tanh(), layer)
            if self.inner is not None:
                part = partial(checkpoint, part, use_reentrant=self.inner)
            x = part(x) if self.outer is None else checkpoint(part, x, use_reentrant=self.outer, **self.options)
        return x


def gradients(net, loss=lambda net: net(ONE.clone().requires_grad_()).square().sum()):
    loss(net).backward()
    return [score.grad for score in scores(net)]


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize(("outer", "inner"), [(True, False), (True, True), (False, False)])
def test_checkpoints_inside_checkpoints(outer, inner, compute):
    wanted = gradients(made(Checkpointed, compute))
    found = gradients(made(partial(Checkpointed, outer, inner), compute))
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("compute", COMPUTES)
def test_selective_checkpoints(compute):
    chosen = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default, torch.ops.aten.addmm.default])
    found = gradients(made(partial(Checkpointed, False, context_fn=chosen), compute))
    assert all(map(torch.equal, found, gradients(made(Checkpointed, compute))))


@pytest.mark.parametrize(("outer", "inner"), [(True, None), (True, True), (True, False)])
def test_what_was_trained_by_other_gates_is_not_taken_for_the_tickets_when_k_has_come_to_its_end(outer, inner):
    net = made(partial(Checkpointed, outer, inner), anneal="cubic")
    advance(net, 0.4)

    def two(net):
        first = net(ONE.clone().requires_grad_()).square().sum()
        advance(net, 1.0)
        return first + net(OTHER.clone().requires_grad_()).square().sum()
    with pytest.raises(UsageError, match="computed anew in a backward pass"):
        gradients(net, two)
    advance(net, 1.0)
    net.zero_grad()
    assert all(score is not None for score in gradients(net))  # passes of now are the ticket's


class Recursive(nn.Module):
    """Calls itself, and computes a part anew."""

    def __init__(self, anew):
        super().__init__()
        self.first, self.last, self.anew = nn.Linear(8, 8), nn.Linear(8, 8), anew

    def forward(self, x, depth=2):
        h = self.first(x).tanh()
        if depth:
            h = h + self(h, depth - 1)
        part = lambda h: self.last(h).tanh()  # noqa: E731
        return checkpoint(part, h, use_reentrant=False) if self.anew else part(h)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("anneal", ["none", "cubic"])
def test_a_network_that_calls_itself(anneal, compute):
    found = []
    for anew in (False, True):
        net = made(partial(Recursive, anew), compute, anneal=anneal)
        advance(net, 0.4)
        found.append(gradients(net))
    assert all(map(torch.allclose, *found))


class Helped(nn.Module):
    """A thread of its own does a part."""

    def __init__(self, pool, anew):
        super().__init__()
        self.part, self.last, self.pool, self.anew = nn.Linear(8, 8), nn.Linear(8, 8), pool, anew

    def forward(self, x):
        part = partial(checkpoint, self.part, use_reentrant=False) if self.anew else self.part
        x = self.pool.submit(part, x).result()
        for _ in range(4):
            x = self.last(x).tanh()
        return x


def count_to(number):
    """Let this thread have counted so many nodes."""
    leaf = torch.ones((), requires_grad=True)
    while torch.autograd._get_sequence_nr() < number:
        leaf.mul(1)


@pytest.mark.parametrize("settings", [{"method": "sampled"}, {"anneal": "cubic"}])
def test_numbers_of_a_helping_thread_are_taken_for_no_other_passes(settings):
    """Autograd counts the nodes of each thread."""
    with ThreadPoolExecutor(1) as pool:
        net = made(partial(Helped, pool, True), **settings)
        advance(net, 0.2)
        before = torch.autograd._get_sequence_nr()
        net(ONE.clone().requires_grad_())
        begin = torch.autograd._get_sequence_nr()
        pool.submit(count_to, 2 * begin - before + 4).result()  # about where the second pass will be
        first = net(ONE.clone().requires_grad_()).square().sum()
        advance(net, 0.6)
        with pytest.raises(UsageError, match="train in one thread"):
            (first + net(OTHER.clone().requires_grad_()).square().sum()).backward()
        found = gradients(made(partial(Helped, pool, True)))
        assert all(map(torch.allclose, found, gradients(made(partial(Helped, pool, False)))))


def test_a_thread_that_begins_a_pass_of_its_own_helps_no_other():
    """And one that is begun while another's inner pass has been interrupted leaves the outer one."""
    passes, inside, over = Passes(), threading.Event(), threading.Event()
    begun = []

    class Outer(nn.Module):
        def forward(self):
            begun.append(passes.begin([], True))
            inside.set()
            over.wait(60)
            begun.append(passes.now())

    ended = (lambda: sys._getframe())()
    thread = threading.Thread(target=Outer())
    thread.start()
    inside.wait(60)
    hook = nn.Identity()
    hook.register_forward_pre_hook(lambda *_: begun.append(passes.begin([], True)))
    hook(ONE)
    passes._of[thread.ident].append(Pass([], True, ended))  # its call runs no more
    hook(ONE)
    over.set()
    thread.join()
    outer, *own, still = begun
    assert still is outer and outer not in own and not outer.helped


def test_whether_a_pass_is_under_way_is_known_in_whichever_thread_without_a_look_at_its_stack():
    """Frames of another thread that runs cannot be walked: CPython 3.11 ends now and then. Its own list of threads' frames can
    leave all of them waiting."""
    begun, over, ended = threading.Event(), threading.Event(), []

    def work():
        ended.append(Pass([], True, sys._getframe()))
        begun.set()
        over.wait(60)
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(60)
    assert _runs(ended[0])
    over.set()
    thread.join()
    assert not _runs(ended[0])


@pytest.mark.parametrize("compute", COMPUTES)
def test_many_threads_that_train_one_network(compute):
    net, errors = made(chain, compute), []
    wanted = torch.autograd.grad(net(ONE).sum(), scores(net))

    def train():
        try:
            for _ in range(20):
                assert all(map(torch.equal, torch.autograd.grad(net(ONE).sum(), scores(net)), wanted))
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=train) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors

"""What a network, a hook or a user writes to weights that are searched: it changes nothing, or it is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from popup import UsageError, attach, extract, merge, scores
from popup.search.methods import METHODS

INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def plain():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def trained(method="edge_popup", steps=2):
    net = attach(plain(), er_p=0.7, k=0.5, seed=2, method=method)
    optimizer = torch.optim.SGD(scores(net), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(INPUTS).square().sum().backward()
        optimizer.step()
    return net


def shifted(weight):
    with torch.no_grad():
        weight.add_(1)


def by_numpy(weight):
    weight.detach().numpy()[:] = 9


def by_data(weight):
    weight.data.fill_(9)


def doubled(weight):
    weight.data.mul_(2)


def detached(weight):
    weight.detach().normal_()


WRITES = {"data": by_data, "mask": doubled, "numpy": by_numpy, "no_grad": shifted, "detach": detached}


def is_the_ticket(net):
    """Whether the attached network computes, in every mode, what its ticket does."""
    expected = extract(net).apply(plain())(INPUTS)
    with torch.no_grad():
        found = [net.train()(INPUTS), net.eval()(INPUTS), merge(net)(INPUTS)]
    return all(torch.allclose(output, expected, atol=1e-6) for output in [*found, net(INPUTS).detach(), net.train()(INPUTS)])


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_read_outside_of_a_pass_may_be_written_to(method, write):
    net = trained(method)
    write(net[0].weight)
    net.apply(lambda module: write(module.weight) if isinstance(module, nn.Linear) else None)
    assert torch.equal(net.eval()(INPUTS), extract(net).apply(plain())(INPUTS))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("where", ["evaluation", "inference", "backward"])
def test_what_is_read_in_a_pass_that_does_not_train_may_be_written_to(where, write):
    net, read = trained(), []
    handle = net[0].register_forward_pre_hook(lambda module, inputs: write(module.weight))
    if where == "backward":
        handle.remove()
        output = net(INPUTS)
        output.register_hook(lambda gradient: read.append(net[0].weight))
        output.sum().backward()
        write(read[0])
    else:
        with torch.inference_mode() if where == "inference" else torch.no_grad():
            net.eval()(INPUTS)
        handle.remove()
    assert is_the_ticket(net.train())


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("method", ["edge_popup", "signed", "sampled"])
def test_a_write_in_training_passes_is_refused(method, steps, write):
    net, kept = trained(method, steps), []
    net[0].register_forward_hook(lambda module, inputs, output: kept.append(module.weight))
    net[2].register_forward_pre_hook(lambda module, inputs: write(kept[-1]))
    with pytest.raises(UsageError, match=r"^0\.weight (was|is) written to") as error:
        net(INPUTS)
        net(INPUTS)
        extract(net)
    assert "\n" not in str(error.value)


def test_a_write_to_what_was_kept_from_a_pass_is_refused():
    net, kept = trained(), []
    net[0].register_forward_hook(lambda module, inputs, output: kept.append(module.weight))
    net(INPUTS)
    kept[0].data.fill_(9)
    with pytest.raises(UsageError, match=r"^0\.weight was written to"):
        net.eval()(INPUTS)


def test_an_assignment_is_refused():
    net = trained()
    with pytest.raises(UsageError, match=r"^0\.weight is attached, and no weight changes"):
        net[0].weight = torch.ones(8, 6)
    assert is_the_ticket(net)


def test_a_parametrization_on_top_is_refused():
    net = trained()
    parametrize.register_parametrization(net[0], "weight", nn.Tanh(), unsafe=True)
    with pytest.raises(UsageError, match=r"^0\.weight has been parametrized since attach"):
        extract(net)


class Parent(nn.Module):
    """Does something with its child's weight."""

    def __init__(self, use):
        super().__init__()
        self.a, self.b, self.use, self.passes = nn.Linear(6, 8), nn.Linear(8, 4), use, 0

    def forward(self, x):
        self.passes += 1
        return self.b(F.linear(x, self.use(self.a)))


def renormalised(module):
    module.weight.data = F.normalize(module.weight.data, dim=1)
    return module.weight


FOREIGN = {"standardised": (lambda module: module.weight - module.weight.mean(1, keepdim=True), "by sub"),
           "rounded": (lambda module: module.weight + (module.weight.round() - module.weight).detach(), "by add"),
           "renormalised": (renormalised, "is replaced by the forward pass")}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_parent_that_computes_another_weight_is_refused_before_it_is_trained(case):
    use, words = FOREIGN[case]
    net = attach(Parent(use), er_p=0.5)
    with pytest.raises(UsageError, match=rf"^a\.weight .*{words}") as error:
        net(INPUTS)
    assert "\n" not in str(error.value) and net.passes == 0


def test_the_look_before_training_changes_nothing_and_is_done_once():
    net = attach(Parent(lambda module: 2 * module.weight), er_p=0.5)
    inputs, random = INPUTS.clone(), torch.get_rng_state()
    for passes in (1, 2):
        net(inputs)
        assert net.passes == passes
    assert torch.equal(inputs, INPUTS) and torch.equal(random, torch.get_rng_state()) and net.training


def test_a_layer_that_training_never_asked_for_its_weight_has_no_ticket():
    held = torch.randn(8, 6)
    net = attach(Parent(lambda module: held), er_p=0.5)
    extract(net)  # nothing was trained yet
    net(INPUTS).sum().backward()
    with pytest.raises(UsageError, match=r"^a\.weight was asked for its weight by none of the training passes"):
        extract(net)

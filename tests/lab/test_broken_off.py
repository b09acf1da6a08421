"""What a popup.fit that was refused or broken off leaves of the user's network, and what the next call makes of it."""

import pytest
import torch
from torch import nn

import popup
from popup.lab.training.checkpoint import CheckpointError, Checkpoints
from popup.lab.training.stop import RunFailed
from popup.search.network import is_attached, search_of
from popup.search.parametrization import EdgeWeight

GENERATOR = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.randn(96, 8, generator=GENERATOR), torch.randint(0, 3, (96,), generator=GENERATOR)
SPLIT = INPUTS, LABELS


def make(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), *more, nn.Linear(20, 3))


def config(**fields):
    return popup.Config().replace(**{"epochs": 3, **fields})


class ByName(nn.Module):
    """Refused once it is attached, since its forward takes a weight by the name that it has before."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 20), nn.BatchNorm1d(20), nn.Linear(20, 3)
        nn.init.normal_(self.norm.weight)
        self.norm.running_mean.fill_(3.0)
        self.first.bias.requires_grad_(False)

    def forward(self, inputs):
        named = dict(self.named_parameters())
        return self.last(torch.relu(self.norm(nn.functional.linear(inputs, named["first.weight"], named["first.bias"]))))


class Interrupting(ByName):
    """A network that a user interrupts when popup tries it as an attached one."""

    def forward(self, inputs):
        if "first.weight" not in dict(self.named_parameters()):
            raise KeyboardInterrupt
        return super().forward(inputs)


def state_of(net):
    """All that a user may have of a network: objects, values, order, hooks, modes, what learns."""
    named = [*net.named_parameters(), *net.named_buffers()]
    modules = [(name, type(module), module.training, list(vars(module)),
                {key: list(value) for key, value in vars(module).items() if isinstance(value, dict)})
               for name, module in net.named_modules()]
    tensors = [(name, id(tensor), tensor.requires_grad) for name, tensor in named]
    return tensors, modules, [tensor.clone() for _, tensor in named]


def same(first, second):
    return first[:2] == second[:2] and all(map(torch.equal, first[2], second[2]))


def losses(outcome):
    return [row["train_loss"] for row in outcome.history], [row["test_loss"] for row in outcome.history]


@pytest.mark.parametrize(("kind", "error"), [(ByName, popup.UsageError), (Interrupting, KeyboardInterrupt)])
def test_a_network_that_is_refused_once_it_is_attached_is_as_it_came(kind, error):
    net = kind().train()
    net.norm.eval()
    net.last.register_forward_hook(lambda module, inputs, output: None)
    before, random = state_of(net), torch.get_rng_state()
    with pytest.raises(error):
        popup.fit(net, SPLIT, SPLIT, config())
    assert not is_attached(net) and same(before, state_of(net))
    assert torch.equal(random, torch.get_rng_state())
    popup.attach(net, er_p=0.5)


@pytest.mark.parametrize("count", [1, 2, 3])  # the first is attach's own trial of the method
def test_an_interrupt_in_the_middle_of_attach_leaves_a_network_as_it_came(count, monkeypatch):
    net, real, done = make(), EdgeWeight.remember, []

    def remember(layer, memory):
        done.append(layer)
        if len(done) == count:
            raise KeyboardInterrupt
        real(layer, memory)

    before = state_of(net)
    monkeypatch.setattr(EdgeWeight, "remember", remember)
    with pytest.raises(KeyboardInterrupt):
        popup.fit(net, SPLIT, SPLIT, config())
    assert not is_attached(net) and same(before, state_of(net))


def stop_at(epoch, error):
    def tell(metrics):
        if metrics["epoch"] == epoch:
            raise error
    return tell


def broken_off(net, error=KeyboardInterrupt, **fields):
    with pytest.raises(error):
        popup.fit(net, SPLIT, SPLIT, config(**fields), stop_at(2, error("the disk is full")))
    return net


def test_an_error_of_who_looks_on_after_as_many_steps_as_before_is_no_refusal():
    net = make()
    popup.fit(net, SPLIT, SPLIT, config(epochs=2))
    with pytest.raises(popup.UsageError, match="of a call of their own"):
        popup.fit(net, SPLIT, SPLIT, config(epochs=4), stop_at(2, popup.UsageError("of a call of their own")))
    with pytest.raises(popup.UsageError, match=r"broken off after 6 steps"):
        popup.fit(net, SPLIT, SPLIT, config(epochs=4))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_search_that_is_broken_off_keeps_its_scores_and_is_begun_anew_by_a_detach(error):
    net = broken_off(make(), error, er_p=0.2, seed=7)
    assert search_of(net).steps == 6
    assert popup.extract(net).recipe.seed == 7
    with pytest.raises(popup.UsageError, match=r"broken off after 6 steps.*popup\.detach\(net\)") as refused:
        popup.fit(net, SPLIT, SPLIT, config(er_p=0.2, seed=7))
    assert "\n" not in str(refused.value)
    again = popup.fit(popup.detach(net), SPLIT, SPLIT, config(er_p=0.9, seed=1))
    assert losses(again) == losses(popup.fit(make(), SPLIT, SPLIT, config(er_p=0.9, seed=1)))
    assert (search_of(net).recipe.er_p, search_of(net).recipe.seed) == (0.9, 1)


@pytest.mark.parametrize("fields", [{"er_p": 0.9}, {"seed": 0}, {"k": 0.3}, {"method": "averaged"}, {"scope": "global"}])
@pytest.mark.parametrize("finished", [True, False])
def test_another_source_or_search_than_the_one_that_fit_attached_is_refused(fields, finished):
    first = {"er_p": 0.2, "seed": 7}
    net = make() if finished else broken_off(make(), **first)
    if finished:
        popup.fit(net, SPLIT, SPLIT, config(**first))
    (name, value), = fields.items()
    with pytest.raises(popup.UsageError, match=rf"^{name} is {value!r} in the config and .* popup\.detach\(net\)") as refused:
        popup.fit(net, SPLIT, SPLIT, config(**{**first, **fields}))
    assert "\n" not in str(refused.value)


def test_a_search_that_is_done_goes_on_by_the_same_config_and_other_training():
    net = make()
    popup.fit(net, SPLIT, SPLIT, config(er_p=0.2))
    before = [scores.clone() for scores in popup.scores(net)]
    assert popup.fit(net, SPLIT, SPLIT, config(er_p=0.2, lr=0.01, anneal_until=0.3)).proof.holds  # without anneal it has no part
    assert not any(map(torch.equal, before, popup.scores(net)))
    broken_off(net, er_p=0.2)
    with pytest.raises(popup.UsageError, match="broken off after 6 steps"):
        popup.fit(net, SPLIT, SPLIT, config(er_p=0.2))


def test_a_checkpoint_lets_what_was_broken_off_go_on_in_the_same_network(tmp_path):
    whole = popup.fit(make(), SPLIT, SPLIT, config(er_p=0.2))
    net, checkpoints = make(), [Checkpoints(tmp_path / "checkpoint.safetensors", seconds=0) for _ in range(2)]
    with pytest.raises(RuntimeError):
        popup.fit(net, SPLIT, SPLIT, config(er_p=0.2), stop_at(2, RuntimeError()), checkpoints[0])
    assert losses(popup.fit(net, SPLIT, SPLIT, config(er_p=0.2), checkpoints=checkpoints[1])) == losses(whole)


def test_a_checkpoint_of_another_run_is_no_broken_search(tmp_path):
    path, net = tmp_path / "checkpoint.safetensors", make()
    with pytest.raises(RuntimeError):
        popup.fit(make(), SPLIT, SPLIT, config(seed=5), stop_at(2, RuntimeError()), Checkpoints(path, seconds=0))
    with pytest.raises(CheckpointError, match="of a run with another config"):
        popup.fit(net, SPLIT, SPLIT, config(), checkpoints=Checkpoints(path))
    assert losses(popup.fit(net, SPLIT, SPLIT, config())) == losses(popup.fit(make(), SPLIT, SPLIT, config()))
    with pytest.raises(CheckpointError, match="of a run with another config"):
        popup.fit(net, SPLIT, SPLIT, config(), checkpoints=Checkpoints(path))
    assert popup.fit(net, SPLIT, SPLIT, config()).proof.holds  # the one that was done is done still


def test_a_checkpoint_is_of_the_images_and_the_network_that_its_search_began_with(tmp_path):
    path, images = tmp_path / "checkpoint.safetensors", (SPLIT[0] + 1, SPLIT[1])

    def fit(net, train=SPLIT, test=SPLIT, on_epoch=lambda metrics: None):
        return popup.fit(net, train, test, config(), on_epoch, Checkpoints(path, seconds=0))

    with pytest.raises(RuntimeError):
        fit(make(), on_epoch=stop_at(2, RuntimeError()))
    other = make()
    place = next(name for name, module in other.named_children() if isinstance(module, torch.nn.ReLU))
    setattr(other, place, torch.nn.Tanh())
    with pytest.raises(CheckpointError, match="of a run of another network than there is now"):
        fit(other)
    for splits in ((images, SPLIT), (SPLIT, images)):
        with pytest.raises(CheckpointError, match="of a run on other images than there are now"):
            fit(make(), *splits)
    attached = popup.attach(make(), search=config().search, recipe=config().source)
    assert losses(fit(attached)) == losses(popup.fit(make(), SPLIT, SPLIT, config()))


def test_what_attach_was_told_otherwise_is_refused_and_what_a_config_leaves_open_is_not():
    net = popup.attach(make(), er_p=0.3, k=0.4, density="erk", method="averaged")
    for name, value in {"er_p": 0.9, "density": "balanced", "method": "iterand", "k": 0.7}.items():
        with pytest.raises(popup.UsageError, match=rf"^{name} is {value!r} in the config and .* leave it out"):
            popup.fit(net, SPLIT, SPLIT, config(**{name: value}))
    assert popup.fit(net, SPLIT, SPLIT, config(seed=3)).proof.holds  # of an attached network the order of its images


@pytest.mark.parametrize("attached", [True, False])
def test_scores_that_are_not_finite_are_told_as_such(attached):
    net, huge = make(), INPUTS.clone()
    huge[0] = 3e38
    net = popup.attach(net, er_p=0.2) if attached else net
    with pytest.raises(RunFailed, match="loss is not finite"):
        popup.fit(net, (huge, LABELS), SPLIT, config())
    with pytest.raises(popup.UsageError, match=r"scores of 0\.weight are not finite.*popup\.detach\(net\)") as refused:
        popup.fit(net, SPLIT, SPLIT, config())
    assert "\n" not in str(refused.value)
    assert losses(popup.fit(popup.detach(net), SPLIT, SPLIT, config())) == losses(popup.fit(make(), SPLIT, SPLIT, config()))


@pytest.mark.parametrize("compute", ["dense", "sparse"])
@pytest.mark.parametrize("error", [None, RuntimeError])
def test_modes_are_what_they_were_however_fit_ends(compute, error):
    net = make(nn.Dropout(0.1)).eval()
    net[1].train()
    before = [module.training for module in net]
    if error is None:
        popup.fit(net, SPLIT, SPLIT, config(compute=compute))
    else:
        broken_off(net, error, compute=compute)
    assert [module.training for module in net] == before and not net.training


def test_a_checkpoint_of_another_config_is_refused_though_nobody_named_one(tmp_path):
    path = str(tmp_path / "checkpoint.safetensors")  # a text is a path too
    whole = popup.fit(make(), SPLIT, SPLIT, config(), checkpoints=Checkpoints(path, seconds=0))
    with pytest.raises(CheckpointError, match="of a run with another config"):
        popup.fit(make(), SPLIT, SPLIT, config(lr=0.0001), checkpoints=Checkpoints(path))
    assert losses(popup.fit(make(), SPLIT, SPLIT, config(), checkpoints=Checkpoints(path))) == losses(whole)


def test_what_a_loop_sets_from_epoch_to_epoch_makes_no_other_network(tmp_path):
    path = tmp_path / "checkpoint.safetensors"

    def fit(net, end=0):
        def on_epoch(metrics):
            dropout.p = 0.1 * metrics["epoch"]
            if metrics["epoch"] == end:
                raise KeyboardInterrupt

        dropout = next(module for module in net.modules() if isinstance(module, torch.nn.Dropout))
        return popup.fit(net, SPLIT, SPLIT, config(), on_epoch, Checkpoints(path, seconds=0))

    def dropping():
        return torch.nn.Sequential(torch.nn.Dropout(0.1), make())

    whole = losses(fit(dropping()))
    path.unlink()
    net = dropping()
    with pytest.raises(KeyboardInterrupt):
        fit(net, 2)
    assert losses(fit(net)) == whole
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(dropping(), 2)
    assert losses(fit(dropping())) == whole


def test_data_that_are_no_two_tensors_are_one_line():
    data = torch.utils.data
    for train in (data.DataLoader([1]), data.TensorDataset(*SPLIT), (part for part in SPLIT), [*SPLIT, None]):
        with pytest.raises(popup.UsageError, match=r"train is a \w+: pass \(images, labels\) as torch tensors"):
            popup.fit(make(), train, SPLIT, config())


def test_a_network_that_torch_fx_has_traced_is_searched_as_the_one_that_it_was():
    traced = torch.fx.symbolic_trace(make())
    assert losses(popup.fit(traced, SPLIT, SPLIT, config())) == losses(popup.fit(make(), SPLIT, SPLIT, config()))
    assert popup.merge(traced.eval())(SPLIT[0]).equal(traced(SPLIT[0]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_program_of_torch_jit_is_refused_by_name():
    with pytest.raises(popup.UsageError, match=r"a RecursiveScriptModule, a program that torch\.jit made: pass the network"):
        popup.attach(torch.jit.script(make()), er_p=0.5)

"""First scores by the first gradients: sizes stay, the order is the gradient's, and nothing else has changed."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import MODELS
from popup import Config, SearchSettings, UsageError, attach, densities, extract, fit, merge, order_scores, scores
from popup.lab.commands.command import main
from popup.search.methods import METHODS
from popup.search.methods.method import in_order_of
from popup.search.network import search_of

ORDERED = [name for name, method in METHODS.items() if "first_scores" in method.uses]


def batches(count=3, size=8):
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator)) for _ in range(count)]


def network(method="edge_popup", k=0.5, first_scores="gradient", **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3))
    return attach(net, er_p=0.8, k=k, search=SearchSettings(method, first_scores=first_scores, **options))


def slopes(net):
    """W dL/dW_eff of each layer's edges, by a dense network of its own: batch norms with each batch's statistics, no dropout."""
    plain = merge(net)
    weights = [plain[0].weight, plain[4].weight]
    masks = [torch.zeros(weight.numel(), dtype=torch.bool) for weight in weights]
    for mask, layer in zip(masks, search_of(net).layers, strict=True):
        mask[layer.places().long()] = True
    totals = [torch.zeros_like(weight) for weight in weights]
    for inputs, labels in batches():
        leaves = [weight.detach().clone().requires_grad_(True) for weight in weights]
        hidden = F.batch_norm(F.linear(inputs, leaves[0]), None, None, training=True)
        loss = F.cross_entropy(F.linear(F.relu(hidden), leaves[1]), labels, reduction="sum")
        for total, part in zip(totals, torch.autograd.grad(loss, leaves), strict=True):
            total += part / 24
    frozen = [layer.values for layer in search_of(net).layers]
    return [(total.flatten()[mask] * own).numpy() for total, mask, own in zip(totals, masks, frozen, strict=True)]


@pytest.mark.parametrize("rank", ["magnitude", "value"])
def test_the_highest_go_where_a_weight_lowers_the_loss_most(rank):
    net = network(rank=rank)
    before, wanted = [score.detach().clone().numpy() for score in scores(net)], slopes(net)
    order_scores(net, batches())
    for old, score, slope in zip(before, scores(net), wanted, strict=True):
        new = score.detach().numpy()
        ranked = (new, old) if rank == "value" else (np.abs(new), np.abs(old))
        assert np.array_equal(np.sort(ranked[0]), np.sort(ranked[1])), "the sizes that were drawn"
        order = np.argsort(-ranked[0])
        assert np.all(np.diff(slope[order]) >= -1e-6), "the more a weight lowers the loss, the higher"
        assert rank == "value" or np.array_equal(np.sign(new), np.sign(old))


def test_signs_follow_the_gradient_where_they_may_be_turned():
    net = network("signed")
    before = [score.detach().abs().sort().values for score in scores(net)]
    ticket = copy.deepcopy(net)
    order_scores(net, batches())
    loss = [sum(float(F.cross_entropy(part(inputs), labels)) for inputs, labels in batches())
            for part in (merge(ticket).train().requires_grad_(False), merge(net).train().requires_grad_(False))]
    assert loss[1] < loss[0]
    for old, score in zip(before, scores(net), strict=True):
        assert torch.equal(score.detach().abs().sort().values, old)


@pytest.mark.parametrize("method", ORDERED)
def test_nothing_else_changes_and_laws_hold(method):
    net = network(method, anneal="linear") if "anneal" in METHODS[method].uses else network(method)
    net.eval()
    buffers = {name: value.clone() for name, value in net.named_buffers() if ".memory_" not in name}
    frozen = [layer.values.clone() for layer in search_of(net).layers]
    other = copy.deepcopy(net)
    order_scores(net, batches())
    order_scores(other, batches())
    for one, two in zip(scores(net), scores(other), strict=True):
        assert torch.equal(one, two) and one.grad is None
    assert not net.training and net[3].training is False
    for name, value in buffers.items():
        assert torch.equal(net.get_buffer(name), value), name
    for layer, values in zip(search_of(net).layers, frozen, strict=True):
        assert torch.equal(layer.values, values)
        for name, value in search_of(net).method.first_memory(layer, scores(net)[search_of(net).layers.index(layer)].detach(),
                                                              search_of(net).recipe.seed).items():
            assert torch.equal(layer.memory(name), value), "what is remembered is of the scores as they are now"
    assert all(row.kept == layer.kept for row, layer in zip(densities(net), search_of(net).layers, strict=True))
    assert [layer.kept for layer in extract(net).layers] == [layer.kept for layer in search_of(net).layers]


class Whole(nn.Module):
    """Decides about its dropout itself, as the network that it is, and puts another buffer in the place of its own."""

    def __init__(self, gives=lambda logits: logits):
        super().__init__()
        self.one, self.two, self.gives = nn.Linear(6, 40), nn.Linear(40, 3), gives
        self.register_buffer("mean", torch.zeros(40))

    def forward(self, x):
        hidden = F.dropout(F.relu(self.one(x)), 0.5, self.training)
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        return self.gives(self.two(hidden))


def whole(**options):
    return attach(Whole(**options), er_p=0.8, k=0.5, search=SearchSettings(first_scores="gradient"))


def test_what_the_network_itself_does_in_training_is_off():
    found = []
    for seed in (0, 1):
        net = whole().train()
        torch.manual_seed(seed)
        before, buffer = torch.get_rng_state(), net.mean
        order_scores(net, batches())
        assert torch.equal(torch.get_rng_state(), before) and net.training
        assert net.mean is buffer and not buffer.any(), "a forward has put another buffer in its place"
        found.append(torch.cat([score.detach() for score in scores(net)]))
    assert torch.equal(*found)


def test_gradients_are_switched_on_where_the_caller_has_them_off():
    one, other = whole(), whole()
    order_scores(one, batches())
    with torch.no_grad():
        order_scores(other, batches())
    assert all(map(torch.equal, scores(one), scores(other))) and all(score.grad is None for score in scores(other))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - set(ORDERED)))
def test_methods_that_take_no_such_scores_are_what_they_are_without(method):
    """Their settings are settled to the usual ones, so that a run has the same name."""
    settings = SearchSettings(method, first_scores="gradient")
    assert settings.settled() == SearchSettings(method).settled()
    net, usual = network(method), network(method, first_scores="random")
    assert all(map(torch.equal, scores(net), scores(usual)))
    with pytest.raises(UsageError, match=f"method {method} takes no first scores by the gradient"):
        order_scores(net, batches())
    net.train()(batches()[0][0])


def test_edges_of_equal_gradient_keep_the_order_they_had():
    """Of dead units it is 0: by their index the first of them would get all that is high."""
    sizes, wanted = torch.tensor([3.0, 5.0, 1.0, 4.0, 2.0, 4.0]), torch.tensor([0.0, -1.0, 0.0, 0.0, 7.0, 0.0])
    assert in_order_of(wanted, sizes).tolist() == [3.0, 1.0, 2.0, 4.0, 5.0, 4.0]
    assert torch.equal(in_order_of(torch.zeros(6), sizes), sizes)
    assert in_order_of(torch.arange(6.0), sizes).tolist() == [1.0, 2.0, 3.0, 4.0, 4.0, 5.0]


def test_batches_that_fail_leave_all_as_it_was():
    net = network().train()
    before = [value.clone() for value in net.state_dict().values()]

    def failing():
        yield batches()[0]
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        order_scores(net, failing())
    assert net.training and net[3].training and all(map(torch.equal, before, net.state_dict().values()))
    with pytest.raises(UsageError, match=r"popup.order_scores\(net, batches\)"):
        net(batches()[0][0])
    with pytest.raises(UsageError, match="the network gives a dict, and first scores take the loss of logits"):
        order_scores(whole(gives=lambda logits: {"logits": logits}), batches())


def bad(change):
    """A batch whose labels are changed, after one that is right."""
    return [batches()[0], (batches()[1][0], change(batches()[1][1]))]


@pytest.mark.parametrize(("given", "said"), [
    (bad(lambda labels: labels + 1), r"labels go from \d to 3 and the network has 3 classes: labels must be in 0 to 2"),
    (bad(lambda labels: labels - 1), "labels go from -1 to"), (bad(lambda labels: labels * 1.0), "labels are of torch.float32"),
    (bad(lambda labels: labels.to(torch.uint8) * 0 + 156), "labels go from 156 to 156"),  # which as a byte is -100
    (bad(lambda labels: labels.int()), "labels are of torch.int32"), (bad(torch.Tensor.tolist), "labels are a list"),
    (bad(lambda labels: labels[:5]), r"logits have shape \[8, 3\] and labels \[5\]"), (batches()[0], "a batch is a Tensor"),
    (bad(lambda labels: F.one_hot(labels, 3)), r"labels \[8, 3\]"), ([{"inputs": 1, "labels": 2}], "a batch is a dict: give"),
    (None, "batches is of type NoneType: give a list"),
    ([(*batches()[0], 1)], "a batch is a tuple of 3: give"), (bad(lambda labels: labels * 0 - 100)[1:], "no batches with")])
def test_labels_that_are_no_classes_are_refused_in_a_line_before_torch_meets_them(given, said):
    """On a GPU torch's own assertion ends the process's use of it."""
    net = network()
    before = [score.detach().clone() for score in scores(net)]
    with pytest.raises(UsageError, match=said) as error:
        order_scores(net, given)
    assert "\n" not in str(error.value) and all(map(torch.equal, before, scores(net)))


def test_places_of_torchs_own_label_do_not_count():
    inputs, labels = batches()[0]
    one, other = network(), network()
    order_scores(one, [(inputs, labels)])
    with torch.no_grad():
        seen = torch.cat([inputs, inputs]), torch.cat([labels, torch.full_like(labels, -100)])
    order_scores(other, [seen])
    assert all(map(torch.equal, scores(one), scores(other)))


def test_a_state_says_whether_it_was_ordered():
    """Ordered once more the scores would be others, as the pass that they are ordered by is."""
    net, fresh, other = network(), network(), network(first_scores="random")
    length = len(net[0].state_dict()["parametrizations.weight.0._extra_state"])
    fresh.load_state_dict(net.state_dict())
    with pytest.raises(UsageError, match=r"popup.order_scores\(net, batches\)"):
        fresh.train()(batches()[0][0])
    order_scores(net, batches())
    for key, one in ((key, found[key]) for found in (net.state_dict(), other.state_dict()) for key in found if "_extra" in key):
        assert len(one) == length, key
    fresh.load_state_dict(net.state_dict())
    fresh.train()(batches()[0][0])
    assert all(map(torch.equal, scores(net), scores(fresh)))


def test_no_batch_of_one_image_is_left_to_a_norm():
    data = torch.randint(256, (129, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(129) % 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    assert fit(net, (data, labels), (data, labels), Config().replace(epochs=1, first_scores="gradient")).proof.holds


def test_a_search_that_is_not_ordered_is_refused():
    net = network()
    with pytest.raises(UsageError, match=r"popup.order_scores\(net, batches\)"):
        net.train()(batches()[0][0])
    net.eval()(batches()[0][0])  # the ticket of the scores as they were drawn
    before = [score.detach().clone() for score in scores(net)]
    huge = torch.full((4, 6), 1e38), torch.zeros(4, dtype=torch.int64)
    for given, said in (([], "no batches"), ([huge], "not finite")):
        with pytest.raises(UsageError, match=said):
            order_scores(net, given)
        assert all(map(torch.equal, before, scores(net))), "nothing is changed by halves"
        with pytest.raises(UsageError, match=r"popup.order_scores\(net, batches\)"):
            net.train()(batches()[0][0])
    order_scores(net, batches())
    net.train()(batches()[0][0])
    search_of(net).steps = 1
    with pytest.raises(UsageError, match="step 1"):
        order_scores(net, batches())
    with pytest.raises(UsageError, match="first_scores"):
        SearchSettings(first_scores="snip")


@pytest.mark.parametrize("compute", ["dense", "sparse"])
def test_fit_orders_and_finds_the_same_twice(compute):
    generator = torch.Generator().manual_seed(1)
    data = torch.randint(256, (200, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(3, (200,), generator=generator)
    config = Config().replace(first_scores="gradient", epochs=2, batch_size=50, compute=compute)
    assert config.hash() != Config().replace(epochs=2, batch_size=50, compute=compute).hash()
    found = [fit(MODELS["mlp"]((1, 8, 8), 3, widths=(16,)), (data, labels), (data, labels), config).history for _ in range(2)]
    assert found[0] == found[1]
    plain = fit(MODELS["mlp"]((1, 8, 8), 3, widths=(16,)), (data, labels), (data, labels), config.replace(first_scores="random"))
    assert plain.history != found[0]


def test_the_command_line_takes_it_as_an_axis(tmp_path, capsys):
    assert main(["--first-scores", "random", "gradient", "--epochs", "1", "--widths", "8", "--controls", "none", "--threads", "1",
                 "--workers", "1", "--out", str(tmp_path)], MODELS) == 0
    assert "first_scores" in (tmp_path / "results.csv").read_text().splitlines()[0]
    assert "gradient" in capsys.readouterr().out

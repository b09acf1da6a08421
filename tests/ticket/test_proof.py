"""The proof holds for an honest search, and reports each law that is broken on purpose. And hashes, against hashlib."""

import hashlib

import numpy as np
import pytest
import torch

import models
from popup import attach, merge, scores
from popup.search.network import search_of
from popup.search.search import Search
from popup.ticket import proof as proof_module
from popup.ticket import prove
from popup.ticket.hashes import frozen_hashes, hash_array, hash_tensor

INPUTS = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["layer", "global"])
def searched(request):
    """A network after two steps, and the hashes from before them."""
    net = attach(models.resnet18((1, 8, 8), 4, (4, 4, 4, 4)), er_p=0.4, k=0.5, seed=2, scope=request.param)
    before = frozen_hashes(net)
    optimiser = torch.optim.SGD(scores(net), lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(INPUTS), torch.arange(16) % 4).backward()
        optimiser.step()
    return net, before


def test_an_honest_search_is_proven(searched):
    net, before = searched
    proof = prove(net, before, INPUTS)
    assert proof.holds and not (proof.changed or proof.outside or proof.miscounted or proof.differing)
    assert proof.predictions == 16 and proof.frozen == len(before) == 2 * 21 + 2 * 20 + 1


def test_proving_changes_nothing(searched):
    net, before = searched
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    prove(net, before, INPUTS)
    assert net.training and all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in state.items())
    net.eval()
    prove(net, before, INPUTS)
    assert not net.training


@pytest.mark.parametrize("name", ["1.weight", "1.bias", "13.bias", "3.norm1.weight"])
def test_a_changed_parameter_is_reported(searched, name):
    net, before = searched
    net.get_parameter(name).data.view(-1)[0] += 1e-6
    proof = prove(net, before, INPUTS)
    assert proof.changed == (name,) and not proof.holds and not proof.outside


def test_a_parameter_that_is_gone_or_new_is_reported(searched):
    net, before = searched
    net[13].bias = None
    net.register_parameter("new", torch.nn.Parameter(torch.zeros(1), requires_grad=False))
    assert prove(net, before, INPUTS).changed == ("13.bias", "new")


def test_a_changed_weight_is_reported_as_changed_and_as_not_the_sources(searched):
    net, before = searched
    layer, mask = search_of(net).layers[3], search_of(net).select()[3]
    layer.values[mask.nonzero()[0]] *= -1
    for group in search_of(net).groups:
        group.forget()  # kept from the last step, with the value from before
    proof = prove(net, before, INPUTS)
    assert proof.changed == (f"{layer.spec.name}/weights",) and proof.outside == (layer.spec.name,)
    assert not proof.holds


def test_a_changed_weight_that_is_not_kept_is_reported_too(searched):
    net, before = searched
    layer, mask = search_of(net).layers[3], search_of(net).select()[3]
    layer.values[(~mask).nonzero()[0]] *= 2
    proof = prove(net, before, INPUTS)
    assert proof.changed == (f"{layer.spec.name}/weights",) and not proof.outside and not proof.holds


def test_moved_edges_are_reported(searched):
    net, before = searched
    layer = search_of(net).layers[2]
    layer.gaps[1:].copy_(layer.gaps[1:].flip(0))  # as many edges inside the layer, elsewhere
    for group in search_of(net).groups:
        group.forget()  # kept from the last step, with the edges from before
    proof = prove(net, before, INPUTS)
    assert proof.changed == (f"{layer.spec.name}/edges",) and proof.outside == (layer.spec.name,) and not proof.holds


def test_a_weight_off_the_edges_is_reported(searched, monkeypatch):
    net, before = searched
    layer = search_of(net).layers[5]
    edges = set(layer.flat_edges().tolist())
    place = next(place for place in range(layer.spec.entries) if place not in edges)
    forward = type(layer).forward

    def leaking(self, scores):
        weight = forward(self, scores).clone()
        if self.spec == layer.spec:
            weight.view(-1)[place] = layer.values[0]
        return weight

    monkeypatch.setattr(type(layer), "forward", leaking)
    proof = prove(net, before, INPUTS)
    assert proof.outside == (layer.spec.name,) and proof.miscounted and not proof.changed and not proof.holds


def select_wrongly(monkeypatch, spoil):
    """Let every selection be spoiled: `spoil` changes its masks in place."""
    honest = Search.top

    def top(self, keys, k):
        masks = [mask.clone() for mask in honest(self, keys, k)]
        spoil(self.of_layers(masks))
        return masks

    monkeypatch.setattr(Search, "top", top)
    monkeypatch.setattr(Search, "top_of_one", lambda self, keys, place: self.select()[place])


@pytest.mark.parametrize("more", [False, True])
def test_a_wrong_count_is_reported(searched, monkeypatch, more):
    net, before = searched

    def one_off(masks):
        masks[0][(masks[0] != more).nonzero()[0]] = more

    select_wrongly(monkeypatch, one_off)
    proof = prove(net, before, INPUTS)
    under_global = search_of(net).settings.scope == "global"
    name = "the whole network" if under_global else search_of(net).layers[0].spec.name
    assert proof.miscounted == (name,) and not proof.changed and not proof.outside and not proof.holds


def test_a_layer_that_lost_all_its_edges_is_reported(searched, monkeypatch):
    net, before = searched

    def collapse(masks):
        """The same total, but the first layer keeps nothing."""
        free = (~masks[8]).nonzero().flatten()[:int(masks[0].sum())]
        assert len(free) == masks[0].sum()
        masks[8][free], masks[0][:] = True, False

    select_wrongly(monkeypatch, collapse)
    assert search_of(net).layers[0].spec.name in prove(net, before, INPUTS).miscounted


def test_a_merged_network_that_predicts_otherwise_is_reported(searched, monkeypatch):
    net, before = searched

    def other(net):
        merged = merge(net)
        merged.register_forward_hook(lambda module, inputs, output: -output)
        return merged

    monkeypatch.setattr(proof_module, "merge", other)
    proof = prove(net, before, INPUTS)
    assert 0 < proof.differing <= proof.predictions and not proof.holds


def test_hashes_are_of_the_little_endian_bytes_in_c_order():
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    expected = hashlib.sha256(array.tobytes()).hexdigest()
    assert hash_array(array) == hash_array(array.astype(">f4")) == hash_array(np.asfortranarray(array)) == expected
    assert hash_tensor(torch.from_numpy(array)) == hash_tensor(torch.from_numpy(array).T.contiguous().T) == expected
    assert hash_array(array[::2]) == hashlib.sha256(array[::2].tobytes()).hexdigest()
    assert hash_array(array[:0]) == hashlib.sha256(b"").hexdigest()
    assert hash_array(np.array([True, False])) == hashlib.sha256(b"\x01\x00").hexdigest()


def test_hashes_tell_signed_zeros_nan_bits_and_bfloat16_apart():
    assert hash_tensor(torch.tensor([0.0])) != hash_tensor(torch.tensor([-0.0]))
    bits = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert hash_tensor(bits[:1]) != hash_tensor(bits[1:])
    assert hash_tensor(torch.tensor([1.0], dtype=torch.bfloat16)) == hashlib.sha256(b"\x80\x3f").hexdigest()
    assert hash_tensor(torch.tensor(3)) == hashlib.sha256(b"\x03" + b"\x00" * 7).hexdigest()


def test_the_frozen_are_all_but_the_scores(searched):
    net, before = searched
    learned = {id(score) for score in scores(net)}
    others = {name for name, parameter in net.named_parameters() if id(parameter) not in learned}
    sources = {f"{layer.spec.name}/{what}" for layer in search_of(net).layers for what in ("edges", "weights")}
    assert before.keys() == others | sources

"""The forms of a ticket: coded masks and their size, embedded and given weights, directories, and a reader without popup."""

import json
import os
import subprocess
import sys
import zlib
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import models
import popup
from popup import Ticket, UsageError, attach, densities, extract, load, merge, scores, verify
from popup.lab.training.fit import fit
from popup.search.network import search_of
from popup.ticket import coding
from popup.ticket.export import differing

ROOT = Path(__file__).parents[2]
IMAGE = (1, 8, 8)


def searched(**options):
    torch.manual_seed(0)
    net = attach(models.small_conv(IMAGE, 4, (8, 8)), **{"er_p": 0.4, "seed": 3, **options})
    optimiser = torch.optim.SGD(scores(net), lr=0.5)
    torch.nn.functional.cross_entropy(net(torch.randn(6, *IMAGE)), torch.arange(6) % 4).backward()
    optimiser.step()
    return net.eval()


@pytest.mark.parametrize(("k", "excess"), [(0.001, 1.25), (0.01, 1.02), (0.05, 1.01), (0.2, 1.02), (0.35, 1.03)])
def test_coded_masks_come_near_their_entropy_and_back(k, excess):
    selected = np.random.default_rng(0).random(400_000) < k
    coded = coding.compress(selected)
    assert np.array_equal(coding.decompress(coded, len(selected), int(selected.sum())), selected)
    entropy = -k * log2(k) - (1 - k) * log2(1 - k)
    assert len(coded) * 8 < excess * entropy * len(selected)


@pytest.mark.parametrize("selected", [
    np.zeros(0, bool), np.zeros(3000, bool), np.arange(3000) == 2999, np.arange(3000) == 0, np.arange(3000) % 256 == 255,
    np.arange(3000) % 511 == 510, np.arange(3000) % 255 == 254, np.arange(600) == 255, np.arange(600) == 254])
def test_every_length_of_gap_is_coded(selected):
    coded = coding.compress(selected)
    if coded is not None:
        assert np.array_equal(coding.decompress(coded, len(selected), int(selected.sum())), selected)
    assert (coded is None) == (len(selected) == 0)


@pytest.mark.parametrize(("counts", "width"), [
    ([], 2), ([0], 2), ([3, 65535, 0], 2), ([65535, 65536, 70000], 4), ([2**31 - 1], 4)])
def test_counts_are_stored_as_wide_as_they_need(counts, width):
    coded = coding.compress_counts(np.array(counts, np.int32))
    assert coding.decompress_counts(coded, len(counts)).tolist() == counts
    assert zlib.decompress(coded) == b"".join(count.to_bytes(width, "little") for count in counts)


@pytest.mark.parametrize(("content", "words"), [
    (bytes(8), "32-bit numbers, and the largest is 0"), (b"\xff" * 8, "the largest is 4294967295"),
    (bytes(6), "2 numbers"), (bytes(9), "2 numbers"), (bytes(10**7), "2 numbers")])
def test_counts_in_another_form_are_refused(content, words):
    with pytest.raises(ValueError, match=words):
        coding.decompress_counts(np.frombuffer(zlib.compress(content), np.uint8), 2)


def test_a_mask_of_half_the_edges_is_not_coded():
    assert coding.compress(np.random.default_rng(0).random(10_000) < 0.5) is None


@pytest.mark.parametrize("options", [{}, {"k": 0.05}, {"weights": "kaiming_normal"}, {"weights": "given"}])
@pytest.mark.parametrize("form", [{}, {"compress": True}, {"embed_weights": True}, {"embed_weights": True, "compress": True}])
def test_all_forms_give_the_same_network(options, form, tmp_path):
    net = searched(**options)
    ticket = load(extract(net).save(tmp_path / "t", **form))
    state = merge(net).state_dict()
    assert state.keys() == ticket.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ticket.state_dict().items())
    assert verify(ticket).holds
    stored = form.get("embed_weights") or options.get("weights") == "given"
    assert all((layer.values is not None) == bool(stored) for layer in ticket.layers)


def test_given_weights_are_the_networks_own(tmp_path):
    net = models.small_conv(IMAGE, 4, (8, 8))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    attach(net, er_p=0.4, k=0.5, weights="given", gain=9.0)
    for layer in search_of(net).layers:
        assert torch.equal(layer.values, before[layer.spec.name].flatten()[layer.flat_edges()])


def pruned():
    net = models.mlp(IMAGE, 4, (32,))
    net[1].weight.data[:, ::7] = 0
    return net


def test_a_run_on_the_weights_of_a_pruned_network_is_proven_and_counts_what_is_in_use():
    net = pruned()
    edges = {layer.name: net.get_parameter(layer.name) != 0 for layer in popup.source.find_layers(net)}
    attach(net, mask="given", masks=edges, weights="given")
    assert [row.edges for row in densities(net)] == [32 * 54, 32 * 4]
    images, labels = torch.randn(64, *IMAGE), torch.arange(64) % 4
    outcome = fit(net, (images, labels), (images, labels))
    assert outcome.proof.holds
    ticket = extract(net)
    assert verify(ticket).holds
    assert [row.kept for row in densities(net)] == [int(merge(net)[place].weight.count_nonzero()) for place in (1, 3)]


def blank(place, attribute):
    net = models.mlp(IMAGE, 4, (32,))
    getattr(net[place], attribute).data.zero_()
    return net


OWN = r"masks=\{layer\.name: net\.get_parameter\(layer\.name\) != 0 for layer in popup\.source\.find_layers\(net"
ZEROS = {
    "pruned": (pruned, {"er_p": 1.0}, r"1\.weight has the weight 0 at 320 of its 2048 edges, .*mask='given', " + OWN + r"\)\}"),
    "pruned, with biases": (pruned, {"er_p": 1.0, "bias": "search"}, OWN + r", True\)\}"),
    "a layer of zeros": (lambda: blank(3, "weight"), {"er_p": 0.5}, "3.weight has .* no other weight: initialise it, or use w"),
    "biases of zeros": (lambda: blank(1, "bias"), {"er_p": 0.5, "bias": "search"}, "1.bias .* initialise it, or use bias='zero'"),
    "a mask of one's own": (pruned, {"mask": "given", "masks": {
        "1.weight": torch.ones(32, 64, dtype=torch.bool), "3.weight": torch.ones(4, 32, dtype=torch.bool)}},
        r"1\.weight has the weight 0 at 320 .* needs a mask without these: masks\['1\.weight'\] & \(weight != 0\)"),
}


@pytest.mark.parametrize("case", ZEROS)
def test_a_given_weight_of_zero_is_no_edge(case):
    build, options, words = ZEROS[case]
    net = build()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match=words) as error:
        attach(net, weights="given", **options)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())


def test_given_weights_must_be_finite():
    net = models.mlp(IMAGE, 4, (32,))
    net[1].weight.data[0, 0] = float("inf")
    with pytest.raises(UsageError, match=r"1\.weight has weights that are not finite"):
        attach(net, er_p=0.5, weights="given")


def test_the_hubs_names(tmp_path):
    net = searched()
    path = extract(net, {"a": 1}).save_pretrained(tmp_path / "new" / "directory")
    assert path.name == "ticket.safetensors"
    assert Ticket.from_pretrained(tmp_path / "new" / "directory").about == {"a": 1}


@pytest.mark.parametrize(("k", "compress", "method"), [
    (0.5, False, "edge_popup"), (0.05, True, "edge_popup"), (0.5, False, "signed"), (0.05, True, "signed")])
def test_a_script_without_popup_reads_a_mask_and_its_codes(k, compress, method, tmp_path):
    script = ROOT / "tests/ticket/read_mask.py"
    assert "popup" not in [line.split()[1].split(".")[0] for line in script.read_text().splitlines()
                           if line.startswith(("import ", "from "))] and len(script.read_text().splitlines()) <= 95
    net = attach(models.resnet18(IMAGE, 3, (4, 4, 6, 6)), er_p=0.4, k=k, seed=7, method=method)
    path, weights = extract(net).save(tmp_path / "t", compress=compress), merge(net).state_dict()
    for layer, own in [*zip(search_of(net).layers, search_of(net).codes(), strict=True)][::5]:
        done = subprocess.run([sys.executable, str(script), str(path), layer.spec.name], cwd=tmp_path, capture_output=True,
                              text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = json.loads(done.stdout)
        kept = weights[layer.spec.name].flatten().nonzero().flatten().tolist()
        assert found == {"shape": list(layer.spec.shape), "edges": layer.count, "kept": len(kept), "first": kept[:20],
                         "codes": own[own != 0].int().tolist()[:20]}


def test_an_export_may_decide_ties_otherwise_and_nothing_else():
    """Two classes a rounding apart change places in another program; classes that are apart do not."""
    logits = torch.tensor([[1.0, 1.0 - 1e-7, 0.0], [1.0, 0.5, 0.0], [1000.0, 1000.0 + 1e-3, 5.0]])

    class Net(nn.Module):
        def forward(self, x):
            return logits

    swapped = logits.clone()
    swapped[[0, 2]] = swapped[[0, 2]][:, [1, 0, 2]]
    assert differing(Net(), lambda inputs: swapped, torch.zeros(3, 1)) == 0
    swapped[1, 1] = 2.0
    assert differing(Net(), lambda inputs: swapped, torch.zeros(3, 1)) == 1

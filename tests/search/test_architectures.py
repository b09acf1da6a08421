"""Known architectures: the table of docs/models-and-data.md, and transformers' tiny ones searched, merged, saved and applied."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from popup import UsageError, attach, extract, load, merge, scores, verify
from popup.search.network import search_of
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove
from tests.search.architectures import MODELS, TIMM, line, timm_row, transformers_row

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "models-and-data.md").read_text()
QUICK = ["coat_tiny", "efficientnet_cc_b0_4e", "nf_resnet50", "sequencer2d_s", "swin_tiny_patch4_window7_224"]  # of timm's


def inputs(model, net):
    """What a tiny model is called with, two examples."""
    chance, config = torch.Generator().manual_seed(0), net.config
    made = {"input_ids": lambda: torch.randint(3, 60, (2, 8), generator=chance),
            "decoder_input_ids": lambda: torch.randint(3, 60, (2, 8), generator=chance),
            "pixel_values": lambda: torch.randn(2, 3, 16, 16, generator=chance),
            "input_features": lambda: torch.randn(2, 8, 2 * config.max_source_positions, generator=chance)}
    return {name: made[name]() for name in model.inputs}


def built(name, tied):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS[name].build(tied)


def steps(net, batch, number=2):
    """Some steps of a search that makes the first class, or token, likely; the losses."""
    optimiser, losses = torch.optim.SGD(scores(net), lr=0.1, momentum=0.9), []
    for _ in range(number):
        optimiser.zero_grad()
        logits = net.train()(**batch).logits.flatten(0, -2)
        loss = torch.nn.functional.cross_entropy(logits, torch.full((len(logits),), 1))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.filterwarnings("ignore:.* of the weights stay dense")
@pytest.mark.parametrize("name", MODELS)
def test_a_tiny_one_is_searched_and_its_ticket_is_the_network(name, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    try:
        net, tied = attach(built(name, None), er_p=0.5, k=0.5), None
    except UsageError as error:
        assert "tie_word_embeddings" in str(error)
        net, tied = attach(built(name, False), er_p=0.5, k=0.5), False
    batch, before = inputs(MODELS[name], net), frozen_hashes(net)
    assert all(layer.spec.sides is None or layer.spec.sides.fan_in > 1 for layer in search_of(net).layers)
    steps(net, batch)
    ticket = load(extract(net.eval()).save(tmp_path / "t.safetensors"))
    assert verify(ticket).holds
    fresh = ticket.apply(built(name, tied)).eval()
    with torch.no_grad():
        own, merged, applied = (each(**batch).logits for each in (net, merge(net), fresh))
    assert torch.equal(own, merged) and torch.equal(own, applied)
    probe = next(iter(batch.values()))
    proof = prove(net, before, probe, ticket, built(name, tied), lambda subject: subject(**batch).logits)
    assert proof.holds, proof


def test_of_gpt2_nearly_all_outside_embeddings_is_masked_and_its_loss_falls():
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(UsageError, match=r"^transformer\.wte\.weight is the same tensor as lm_head\.weight"):
        attach(built("GPT-2", None), er_p=0.5)
    net = built("GPT-2", False)
    weights = sum(parameter.numel() for name, parameter in net.named_parameters() if ".wte." not in name and ".wpe." not in name)
    attach(net, er_p=0.5, k=0.5, skip="transformer.w?e")
    assert sum(layer.spec.entries for layer in search_of(net).layers) >= 0.95 * weights
    losses = steps(net, inputs(MODELS["GPT-2"], net), 12)
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("name", MODELS)
def test_the_table_says_what_is_masked_of_transformers(name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if f"transformers {transformers.__version__}" not in DOCUMENT:
        pytest.skip("the table is of another version")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert line(name, *transformers_row(name)) in DOCUMENT


@pytest.mark.parametrize("name", QUICK)
def test_the_table_says_what_is_masked_of_timm(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    if f"timm {timm.__version__}" not in DOCUMENT:
        pytest.skip("the table is of another version")
    assert line(name, timm_row(name)) in DOCUMENT


def test_the_table_has_thirty_of_timms():
    assert len(TIMM) >= 30 and all(re.search(rf"^\| {name} \|", DOCUMENT, re.MULTILINE) for name in TIMM)

"""timm's models, of all its families: what reaches their products is the weight as it is, or attach refuses them by name.

Most are built and run without data, on "meta": there the chain of operations from each weight to its products is the evidence. A
few small ones are attached and looked at entry by entry. Which are refused stands in docs/refused-models.md.
"""

import re
from pathlib import Path

import pytest
import torch

from popup import UsageError, attach, merge
from popup.search.held import refuse_held
from popup.search.network import search_of
from popup.search.trial import refuse_unfaithful
from popup.search.watch import watched
from popup.source.layers import find_layers
from tests.search.shapes import Shapes

timm = pytest.importorskip("timm", reason="timm is not installed")
HERE = Path(__file__).parent
FAMILIES = {family: names.split() for family, names in
            (line.split(": ") for line in (HERE / "timm_models.txt").read_text().splitlines())}
DOCUMENT = (HERE.parent.parent / "docs" / "refused-models.md").read_text()
SIDES = {"sequencer": 32}  # an LSTM's steps are many
SMALL = ["test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_resnet", "test_vit", "test_vit2"]

def build(name):
    with torch.device("meta"), Shapes():
        return timm.create_model(name, num_classes=10).eval()


def refusal(net):
    """What attach says of a network before it draws anything; None: nothing."""
    try:
        layers = find_layers(net)
        refuse_held(net, layers), refuse_unfaithful(net, layers)
    except UsageError as error:
        return str(error)


def documented():
    """The refused models by name, each with the layer that the document names."""
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| `([^`]+)` \|", DOCUMENT, re.MULTILINE)
    return {name: layer for _, names, layer in rows for name in names.replace(",", " ").split()}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_weight_of_a_family_reaches_its_products_as_it_is_or_is_refused_by_name(family):
    refused = documented()
    for name in set(FAMILIES[family]) & set(timm.list_models()):
        net = build(name)
        said = refusal(net)
        assert (said is not None) == (name in refused), f"{name}: docs/refused-models.md and attach differ: {said}"
        if said is not None:
            assert said.startswith(f"{refused[name]} "), name
            continue
        side = SIDES.get(family)
        x = torch.empty(2, *((3, side, side) if side else net.pretrained_cfg["input_size"]), device="meta")
        with torch.no_grad(), Shapes():
            found = watched(net, {layer.name: None for layer in find_layers(net)}, lambda net=net, x=x: net(x), x)
        assert not found.faults and not found.unreached, name


@pytest.mark.filterwarnings("ignore:.* of the weights stay dense:UserWarning")
@pytest.mark.parametrize("name", SMALL)
def test_small_models_are_looked_at_entry_by_entry(name):
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {name}")
    net = attach(timm.create_model(name, num_classes=10), er_p=0.2, k=0.5).eval()
    layers, x = search_of(net).layers, torch.randn(2, 3, 160, 160)
    expected = {layer.spec.name: layer.dense(mask) for layer, mask in zip(layers, search_of(net).select(), strict=True)}
    for subject in (net, merge(net)):
        with torch.no_grad():
            found = watched(subject, expected, lambda subject=subject: subject(x), x)
        assert not found.faults and not found.unreached


@pytest.mark.parametrize("name", ["test_nfnet", "vit_tiny_r_s16_p8_224"])
def test_a_refused_model_is_refused_by_attach_itself(name):
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with pytest.raises(UsageError, match=rf"^{re.escape(documented()[name])} reaches its product .*by native_batch_norm"):
        attach(timm.create_model(name, num_classes=10), er_p=0.2, k=0.5)


def test_at_least_three_hundred_models_of_all_families_are_looked_at():
    assert len({name for names in FAMILIES.values() for name in names}) >= 300
    if f"timm {timm.__version__}" in DOCUMENT:
        assert set(FAMILIES) == set(timm.list_modules())

"""attach on every torchvision classification family: a step trains, the laws hold, a ticket brings the network back.

The smallest member of each family, at the smallest image that it takes, with no block more than twice in a row.
"""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.regnet import BlockParams

import popup
from popup.search.held import refuse_held
from popup.search.network import search_of
from popup.search.trial import refuse_unfaithful
from popup.search.watch import watched
from popup.source.layers import find_layers, locate
from popup.ticket.hashes import frozen_hashes
from popup.ticket.proof import prove
from tests.search.shapes import Shapes

FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
            "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
            "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_16"]
OPTIONS = {"vit_b_16": {"image_size": 32}, "googlenet": {"aux_logits": True, "init_weights": False},
           "inception_v3": {"aux_logits": False, "init_weights": False}}
SIDES = {"alexnet": 64, "shufflenet_v2_x0_5": 96, "inception_v3": 75}  # else 32; with its auxiliary head Inception needs 299


class WithoutInitialisation(TorchFunctionMode):
    """Weights stay as memory was: attach replaces them, and drawing them would take longer than the test."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if getattr(function, "__module__", None) == "torch.nn.init":
            return arguments[0] if arguments else options["tensor"]
        return function(*arguments, **(options or {}))


def build(name):
    """The network for ten classes, in training mode, without the stochastic depth that would leave whole blocks out."""
    with WithoutInitialisation():
        net = torchvision.models.get_model(name, weights=None, num_classes=10, **OPTIONS.get(name, {}))
        if name in ("vgg11", "alexnet"):  # their linear layers have 120 and 54 million weights of one kind, which take seconds
            features = next(module.in_features for module in net.classifier if isinstance(module, nn.Linear))
            net.classifier = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    for module in list(net.modules()):
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
        elif isinstance(module, nn.Sequential) and len({type(part) for part in module}) == 1 and not isinstance(
                next(iter(module)), nn.Sequential):
            del module[2:]  # what follows is of the second's shape
    return net.train()


def with_data(function):
    """A function of torchvision's that reads tensors that it has made."""
    def inner(*arguments, **options):
        with torch.device("cpu"):
            return function(*arguments, **options)
    return inner


def loss_of(net, images, labels):
    """Cross-entropy of every output, auxiliary ones included; dropout is the same each time."""
    torch.manual_seed(2)
    outputs = net(images)
    return sum(F.cross_entropy(output, labels) for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


def straight_through(net, images, labels):
    """(dL/dW_eff W) sign(s) on the edges of each layer, dL/dW_eff taken from the plain merged network."""
    plain, search = popup.merge(net), search_of(net)
    weights = [getattr(*locate(plain, layer.spec.name)).requires_grad_(True) for layer in search.layers]
    gradients = torch.autograd.grad(loss_of(plain, images, labels), weights)
    return [gradient.flatten()[layer.flat_edges()] * layer.values * scores.detach().sign()
            for gradient, layer, scores in zip(gradients, search.layers, search.scores(), strict=True)]


@pytest.mark.parametrize("name", torchvision.models.list_models(torchvision.models))
def test_each_weight_of_every_classifier_reaches_its_products_as_it_is(name, monkeypatch):
    """Without data: the chain of operations from the weight to the product is the evidence; heads of training count."""
    monkeypatch.setattr(BlockParams, "from_init_params", with_data(BlockParams.from_init_params))
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # with their auxiliary heads
    with torch.device("meta"), Shapes():
        net = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
        side = 299 if name == "inception_v3" else getattr(net, "image_size", 224)
        images = torch.empty(2, 3, side, side)
    layers = find_layers(net)
    refuse_held(net, layers), refuse_unfaithful(net, layers)
    reached = set()
    for training in (False, True):
        with torch.no_grad(), Shapes():
            found = watched(net.train(training), {layer.name: None for layer in layers}, lambda: net(images), images)
        assert not found.faults
        reached |= set(found.reached) - set(found.unreached)
        if len(reached) == len(layers):
            break
    assert reached == {layer.name for layer in layers}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_a_step_keeps_the_laws_and_comes_back_from_its_ticket(name, tmp_path):
    side = SIDES.get(name, 32)
    images, labels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)), torch.arange(2)
    net = build(name)
    names = [layer.name for layer in find_layers(net)]
    # small layers are full: no gradient dies in them; dense, as norms over two images make much of float noise
    popup.attach(net, er_p=0.05, k=0.5, density="balanced", seed=3, compute="dense")
    before = frozen_hashes(net)
    assert [layer.spec.name for layer in search_of(net).layers] == names
    assert {id(tensor) for tensor in net.parameters() if tensor.requires_grad} == {id(score) for score in popup.scores(net)}

    expected = straight_through(net, images, labels)
    loss_of(net, images, labels).backward()
    for layer, scores, gradient in zip(names, popup.scores(net), expected, strict=True):
        assert scores.grad.isfinite().all() and scores.grad.any(), f"{layer} does not learn"
        assert torch.allclose(scores.grad, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())), layer
    torch.optim.SGD(popup.scores(net), lr=0.1).step()
    net.eval()
    assert prove(net, before, images).holds

    popup.extract(net).save(tmp_path / "ticket.safetensors")
    plain = popup.load(tmp_path / "ticket.safetensors").apply(build(name)).eval()
    with torch.no_grad():
        assert torch.equal(plain(images), net(images))
    merged = popup.merge(net).state_dict()
    assert all(torch.equal(tensor, merged[key]) for key, tensor in plain.state_dict().items())


def test_attentions_fast_path_sees_the_same_masked_weights():
    """In eval mode without gradients torch runs a fused kernel that is given the packed weights as they are."""
    net = build("vit_b_16").eval()
    net.encoder.layers = net.encoder.layers[:2]
    popup.attach(net, er_p=0.3, k=0.5, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    slow = net(images)
    with torch.no_grad():
        fast = net(images)
    assert slow.requires_grad and torch.allclose(slow, fast, atol=1e-5)


def test_the_gains_of_convnexts_blocks_are_one_so_that_the_blocks_matter():
    """torchvision starts them at 1e-6 to be learned: frozen there, removing every block changes no digit of the logits."""
    net = popup.attach(build("convnext_tiny"), er_p=0.05, k=0.5, density="balanced", seed=0).eval()
    gains = [parameter for name, parameter in net.named_parameters() if "layer_scale" in name]
    assert len(gains) == 8 and all((gain == 1).all() for gain in gains)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = net(images)
        for gain in gains:
            gain.zero_()
        assert (net(images) - whole).norm() > 0.1 * whole.norm()

"""Gains of blocks start near 0 and would hide the blocks if they were frozen there: attach makes them 1 whatever their name, and
verify asks for it by the same rule."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from popup import attach, extract, merge, verify
from popup.source.frozen import freeze, is_gain, is_tiny
from popup.source.layers import find_layers

TIMM = {  # models of the families that have such gains, and of some that have none
    True: ["resmlp_12_224", "poolformer_s12", "poolformer_m36", "cait_xxs24_224", "convnext_atto", "edgenext_xx_small",
           "inception_next_atto", "rdnet_tiny", "efficientformer_l1", "efficientformerv2_s0", "fastvit_t8", "swiftformer_xs",
           "efficientvim_m1", "coatnext_nano_rw_224", "test_mambaout", "maxxvit_rmlp_nano_rw_256", "xcit_tiny_24_p16_224",
           "vit_tiny_patch16_dinov3_qkvb", "hiera_small_abswin_256", "gcvit_small"],
    False: ["gcvit_xxtiny", "davit_tiny", "mixer_s32_224", "nf_resnet26"]}


class WithoutRandomInitialisation(TorchFunctionMode):
    """Random weights are 0: attach replaces them, and drawing them would take longer than the test."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if getattr(function, "__name__", "") in ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "xavier_uniform_",
                                                 "kaiming_uniform_", "erfinv_"):
            return (arguments[0] if arguments else options["tensor"]).detach().zero_()
        return function(*arguments, **(options or {}))


def tiny(net):
    weights = {layer.name for layer in find_layers(net)}
    return {name for name, parameter in net.named_parameters()
            if name not in weights and not name.endswith("bias") and 0 < parameter.abs().max() <= 0.01 and parameter.std(
                correction=0) < 1e-9}


@pytest.mark.parametrize(("has", "name"), [(has, name) for has, names in TIMM.items() for name in names])
def test_no_gain_of_timms_stays_where_it_starts(has, name):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with WithoutRandomInitialisation():
        net = timm.create_model(name, num_classes=10)
    found = tiny(net)
    freeze(net)
    assert bool(found) is has
    assert all((net.get_parameter(gain) == 1).all() for gain in found) and not tiny(net)


def test_no_gain_of_torchvisions_stays_where_it_starts():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    with WithoutRandomInitialisation():
        net = torchvision.models.convnext_tiny(num_classes=10)
    assert len(tiny(net)) == 18
    freeze(net)
    assert not tiny(net)


class Block(nn.Module):
    """A linear layer beside a shortcut, multiplied with whatever gain."""

    def __init__(self, name, gain):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        holder, _, own = name.rpartition(".")
        if holder:
            self.add_module(holder, nn.Module())
        (getattr(self, holder) if holder else self).register_parameter(own, nn.Parameter(gain))


def full(value, *shape, dtype=torch.float32):
    return torch.full(shape or (8,), value, dtype=dtype)


ONE = {  # name, start: gains, which become 1
    "by its module's name": ("layer_scale1.scale", full(1e-5)), "by its module's name, from 0": ("layer_scale1.scale", full(0.0)),
    "by its name, trained": ("ls1", torch.rand(8)), "by its name, from 0": ("ls_2", full(0.0)),
    "rezero": ("resweight", full(0.0, 1)), "lambda": ("lambda_1", full(0.1)),
    "by its value": ("strength", full(1e-6)), "negative": ("strength", full(-1e-4)),
    "at the bound": ("strength", full(1e-2)), "in bf16": ("strength", full(1e-2, dtype=torch.bfloat16)),
    "of channels": ("s", full(1e-5, 8, 1, 1)), "one for all": ("s", full(1e-3, 1)), "a scalar": ("s", full(1e-3).mean()),
    "a matrix": ("alpha", full(1e-4, 4, 8)), "a weight": ("scale.weight", full(1e-5))}
OWN = {  # name, start: what stays
    "a token": ("cls_token", full(1e-3)), "a place": ("pos_embed", full(1e-3)), "a random vector": ("s", torch.randn(8) / 100),
    "larger": ("s", full(0.02)), "zeros": ("s", full(0.0)), "a random matrix": ("gamma", torch.randn(8, 8))}


@pytest.mark.filterwarnings("ignore:.* of the weights stay dense")
@pytest.mark.parametrize("case", [*ONE, *OWN])
def test_a_gain_is_known_by_its_name_its_modules_or_its_value(case):
    name, start = (ONE | OWN)[case]
    net = attach(nn.Sequential(Block(name, start.clone()), nn.Linear(8, 2)), er_p=0.9)
    found = net.get_parameter(f"0.{name}")
    assert not found.requires_grad and torch.equal(found, torch.ones_like(start) if case in ONE else start)
    assert verify(extract(net)).holds


@pytest.mark.parametrize("case", ONE)
def test_a_ticket_with_a_gain_that_hides_its_block_is_told_of(case):
    name, start = ONE[case]
    ticket = extract(attach(nn.Sequential(Block(name, start.clone()), nn.Linear(8, 2)), er_p=0.9))
    assert ticket.given.keys() == {f"0.{name}"}
    found = verify(replace(ticket, given={f"0.{name}": start}))
    assert found.trained == (() if case == "a weight" else (f"0.{name}",))  # which might be a slope of PReLU's


def test_slopes_of_activations_and_weights_that_get_scores_are_no_gains():
    net = nn.Sequential(nn.Linear(8, 8), nn.PReLU(8, init=0.01), nn.Linear(8, 1), nn.Conv2d(1, 8, 1))
    with torch.no_grad():
        net[2].weight.fill_(1e-3)
        net[3].weight.fill_(1e-3)
    freeze(net)
    assert all((weight == value).all() for weight, value in ((net[1].weight, 0.01), (net[2].weight, 1e-3), (net[3].weight, 1e-3)))
    attached = attach(nn.Sequential(nn.Linear(8, 8), nn.PReLU(8, init=0.01)), er_p=0.9)
    assert (merge(attached)[1].weight == 0.01).all() and verify(extract(attached)).holds


def test_on_meta_only_names_are_known():
    with torch.device("meta"):
        net = Block("s", full(1e-5))
    freeze(net)
    assert not is_tiny(net.s) and not net.s.requires_grad


def test_names_of_gains():
    assert all(map(is_gain, ("blocks.0.ls1", "blocks.0.ls2", "stages.0.blocks.0.layer_scale1.scale", "res_scale2.scale",
                             "a.gamma_1", "b.layer_scale_parameter", "layer_scale1.lambda1", "lambda_2", "rezero.alpha")))
    assert not any(map(is_gain, ("layer_scale.net.weight", "cells.0", "else1.weight", "lambda_q1", "rls.weight", "cls_token")))


def test_blocks_of_a_resmlp_are_there():
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(0)
    net = timm.create_model("resmlp_12_224", num_classes=10, img_size=32)
    attach(net, er_p=0.5, seed=1).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = net(images)
        for name, parameter in net.named_parameters():
            if name.endswith(("ls1", "ls2")):
                parameter.zero_()
        assert (net(images) - whole).norm() > 0.1 * whole.norm()

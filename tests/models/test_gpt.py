"""The language model: logits of each place, which depend on the places before it and on no other; what it refuses."""

import pytest
import torch
from torch import nn

from models import MODELS

WINDOW, VOCABULARY = 12, 7


def build(**options):
    torch.manual_seed(0)
    return MODELS["gpt"]((WINDOW,), VOCABULARY, **options)


def test_a_place_depends_on_itself_and_all_before_it_and_on_nothing_after():
    net = build(width=0.25).double()
    embedded = []

    def hold(module, inputs, output):
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    net.tokens.register_forward_hook(hold)
    logits = net(torch.randint(VOCABULARY, (3, WINDOW)))
    assert logits.shape == (3, WINDOW, VOCABULARY)
    for place in (0, 5, WINDOW - 1):
        (gradient,) = torch.autograd.grad(logits[:, place].square().sum(), embedded[0], retain_graph=True)
        seen = gradient.abs().sum(2) > 0  # [n, tokens]
        assert seen[:, :place + 1].all() and not seen[:, place + 1:].any()


def test_a_shorter_window_has_the_first_logits_of_a_longer_one():
    net, tokens = build(width=0.25), torch.randint(VOCABULARY, (2, WINDOW))
    torch.testing.assert_close(net(tokens[:, :5]), net(tokens)[:, :5])


def test_the_usual_one_is_four_blocks_128_wide_and_places_are_told_apart():
    net = build()
    shapes = [tuple(module.weight.shape) for module in net.modules() if isinstance(module, nn.Linear)]
    assert shapes == [(384, 128), (128, 128), (512, 128), (128, 512)] * 4 + [(VOCABULARY, 128)]
    same = net(torch.zeros(1, WINDOW, dtype=torch.int64))
    assert not torch.allclose(same[0, 0], same[0, 1])


def test_every_parameter_learns():
    net, tokens = build(width=0.25), torch.randint(VOCABULARY, (4, WINDOW))
    net(tokens).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(("window", "options", "words"), [
    ((3, 8, 8), {}, "windows of tokens: give it a text"), ((8,), {"widths": (4,)}, "takes 2 widths.*there are 1")])
def test_what_it_cannot_be_is_one_line(window, options, words):
    with pytest.raises(ValueError, match=words):
        MODELS["gpt"](window, VOCABULARY, **options)

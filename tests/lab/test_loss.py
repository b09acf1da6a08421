"""The loss of a step and its gradient: torch's own numbers, to the bit."""

import pytest
import torch
import torch.nn.functional as F

from popup.lab.training.loss import cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_loss_and_gradient_are_torchs_bit_for_bit(smoothing, parts):
    generator = torch.Generator().manual_seed(parts)
    for size in (0.1, 1.0, 30.0):
        for count, classes in ((1, 2), (5, 10), (32, 10), (33, 17), (128, 1000)):
            logits = (size * torch.randn(count, classes, generator=generator)).requires_grad_()
            labels = torch.randint(0, classes, (count,), generator=generator)
            wanted = F.cross_entropy(logits, labels, label_smoothing=smoothing) * (1 / parts)
            wanted.backward()
            loss, gradient = cross_entropy(logits, labels, smoothing, 1 / parts)
            assert torch.equal(loss, wanted.detach()) and not loss.requires_grad
            assert torch.equal(gradient, logits.grad)


def test_what_is_not_finite_stays_so():
    loss, _ = cross_entropy(torch.tensor([[1e38, float("inf")]]), torch.tensor([0]), 0.1, 1.0)
    assert not loss.isfinite()

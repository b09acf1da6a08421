"""Where the gap between a target and its ticket is looked for: corners, and where the signs of gradients lead."""

import torch
from torch import nn

from popup.lab.runs.gaps import measure_gaps, random_corners, random_inputs
from popup.lab.runs.in_parts import InParts

IMAGE, LOW, HIGH = (1, 4, 4), -1.0, 2.0
CPU = torch.device("cpu")


def measure(off, data=None):
    data = {"test": torch.zeros(10, *IMAGE)} if data is None else data
    return measure_gaps(off, data, LOW, HIGH, 0, CPU)


def test_inputs_lie_in_the_domain_and_corners_at_its_corners():
    inputs, corners = random_inputs(IMAGE, LOW, HIGH, 0), random_corners(IMAGE, LOW, HIGH, 0)
    assert inputs.shape == corners.shape and inputs.min() >= LOW and inputs.max() <= HIGH
    assert set(corners.unique().tolist()) == {LOW, HIGH}
    assert (corners[0] == LOW).all() and (corners[1] == HIGH).all() and 0.4 < (corners[2:] == HIGH).float().mean() < 0.6


def test_a_gap_at_one_corner_is_found():
    found = measure(lambda images: nn.functional.relu(images.mean((1, 2, 3)) - 1.9)[:, None])
    assert found["corners"].largest > 0.09 and found["worst"].largest > 0.09
    assert all((found[name].largest, found[name].mean) == (0.0, 0.0) for name in ("random", "test"))


def test_signs_of_gradients_lead_to_the_worst_input_of_a_linear_gap():
    """No corner of 4,096 in 65,536 is the one: the gradient's signs are."""
    torch.manual_seed(1)
    weight = torch.randn(3, 16)
    signs = weight.sign()
    largest = max(float((row @ torch.where(sign * side > 0, HIGH, LOW)).abs()) for row, sign in zip(weight, signs, strict=True)
                  for side in (1, -1))
    found = measure(lambda images: (images.flatten(1) @ weight.T).abs(), {"test": torch.ones(10, *IMAGE)})
    assert abs(found["worst"].largest - largest) < 1e-4 and found["corners"].largest < 0.99 * largest
    assert all(found["worst"].largest >= gap.largest for gap in found.values())


def test_a_batch_in_parts_is_what_the_network_computes_of_it():
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))
    shared, threads = InParts(net, 3), torch.get_num_threads()
    with torch.no_grad():
        torch.testing.assert_close(shared(images), net(images))
        assert not shared(images).requires_grad and torch.get_num_threads() == threads
    (gradient,) = torch.autograd.grad(shared(images.requires_grad_())[:, 1].sum(), images)
    torch.testing.assert_close(gradient, net[1].weight[1].view(1, 3, 4).expand(7, 3, 4).detach())

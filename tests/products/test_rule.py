"""Which layers compute sparsely."""

import pytest
import torch

from popup.products.rule import pays

CPU = torch.device("cpu")


def sparse(shape, density, against=torch.float32, device=CPU, kernels="numba", groups=1, handed=False):
    return pays(shape, round(density * torch.Size(shape).numel()), against, device, kernels, groups, handed)


@pytest.mark.parametrize(("shape", "density"), [
    ((2048, 784), 0.2), ((2048, 2048), 0.2), ((2048, 2048), 0.01), ((4096, 4096), 0.05), ((512, 512), 0.2), ((300, 784), 0.2),
    ((128, 128, 3, 3), 0.2), ((512, 512, 3, 3), 0.05), ((32, 32, 3, 3), 0.2), ((64, 32, 3, 3), 0.2), ((16, 16, 3, 3), 0.1),
    ((256, 256, 1, 1), 0.2), ((2048, 512, 1, 1), 0.01)])
def test_large_layers_of_few_edges_are_sparse(shape, density):
    assert sparse(shape, density)
    assert not sparse(shape, 0.5) and not sparse(shape, 1.0)


@pytest.mark.parametrize("shape", [
    (256, 256), (100, 300), (10, 2048), (128, 4096), (300, 600), (2048, 10), (8, 100_000), (64, 3, 3, 3), (8, 8, 3, 3),
    (256, 64, 1, 1), (128, 128, 1, 1), (64, 64, 3), (64, 64, 3, 3, 3), (64,), (0, 512)])
def test_small_and_narrow_layers_and_other_forms_are_dense(shape):
    assert not sparse(shape, 0.01)


@pytest.mark.parametrize("other", [
    {"against": torch.float16}, {"against": torch.float64}, {"device": torch.device("cuda")}, {"device": torch.device("meta")}])
def test_other_numbers_and_devices_are_dense(other):
    assert not sparse((2048, 2048), 0.05, **other)


def test_a_draw_at_a_bound_is_sparse_whatever_its_luck():
    """Four standard deviations above p = 0.2 in about the smallest layer that is sparse."""
    assert sparse((300, 700), 0.2 + 4 * (0.2 * 0.8 / 210_000) ** 0.5)


def test_against_bf16_fewer_edges_pay():
    assert sparse((2048, 2048), 0.1, against=torch.bfloat16) and not sparse((2048, 2048), 0.2, against=torch.bfloat16)
    assert not sparse((512, 512, 3, 3), 0.05, against=torch.bfloat16)


def test_convolutions_of_few_channels_are_sparse_later():
    assert not sparse((16, 16, 3, 3), 0.2) and sparse((16, 16, 3, 3), 0.1)


def test_convolutions_in_groups_are_dense():
    assert sparse((512, 512, 3, 3), 0.05) and not sparse((512, 512, 3, 3), 0.05, groups=2)


def test_torch_s_kernels_are_used_later():
    assert not sparse((2048, 2048), 0.2, kernels="torch") and sparse((2048, 2048), 0.05, kernels="torch")
    assert not sparse((512, 512), 0.05, kernels="torch") and not sparse((512, 512, 3, 3), 0.05, kernels="torch")


@pytest.mark.parametrize(("shape", "density"), [
    ((10, 2048), 1.0), ((10, 300), 0.2), ((16, 64), 1.0), ((100, 2048), 0.2), ((300, 600), 0.1)])
def test_what_a_sparse_layer_hands_to_is_sparse_too(shape, density):
    assert sparse(shape, density, handed=True) and not sparse(shape, density)


def test_what_a_sparse_layer_hands_to_is_dense_where_many_edges_lose():
    assert not sparse((100, 2048), 0.5, handed=True) and not sparse((32, 1024), 1.0, handed=True)
    for other in ({"kernels": "torch"}, {"against": torch.bfloat16}):
        assert not sparse((10, 2048), 1.0, handed=True, **other)

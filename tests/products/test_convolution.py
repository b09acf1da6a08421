"""The products of a sparse convolution against torch's own, densely and in float64."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

pytest.importorskip("numba")
from popup.products import numba_kernels
from popup.products.convolution import ConvProducts, Filter, rows_of
from popup.products.numba_kernels import lay

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(channels=st.tuples(st.integers(1, 40), st.integers(1, 40)), taps=pairs, stride=pairs, dilation=pairs,
       padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
       images=st.integers(1, 9), density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
       form=st.sampled_from([torch.contiguous_format, torch.channels_last]), long=st.booleans(), seed=st.integers(0, 99))
def test_products_are_those_of_the_dense_convolution(
        channels, taps, stride, dilation, padding, extra, images, density, form, long, seed):
    """`long`: in parts, as rows of many numbers are."""
    torch.manual_seed(seed)
    size = [apart * (count - 1) + 1 + more for apart, count, more in zip(dilation, taps, extra, strict=True)]
    x = torch.randn(images, channels[1], *size, dtype=torch.float64).to(memory_format=form).requires_grad_()
    edges = (torch.rand(channels[0] * channels[1] * taps[0] * taps[1]) < density).nonzero()[:, 0]
    values = torch.randn(len(edges), dtype=torch.float64) * (torch.rand(len(edges)) < 0.5)
    weight = torch.zeros(*channels, *taps, dtype=torch.float64)
    weight.view(-1)[edges] = values
    weight.requires_grad_()
    y = functional.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)
    gradient = torch.randn_like(y)
    right = y, *torch.autograd.grad(y, (x, weight), gradient)

    products = ConvProducts.of(edges.numpy(), tuple(weight.shape), Filter(taps, stride, padding, dilation))
    kept = products.keep(torch.where(values != 0, values, torch.nan), values != 0) if seed % 2 else products.keep(values)
    with mock.patch.multiple(numba_kernels, LONG=32 if long else 1 << 14, PART=16 if long else 1 << 10):
        found = products.forward(x, kept), *products.gradients(gradient, x, kept)
        assert torch.equal(products.gradients(gradient, x, None)[1], found[2])
    wanted = torch.contiguous_format if y.is_contiguous() else torch.channels_last  # of one channel images are of both formats
    torch.testing.assert_close(found, (*right[:2], right[2].reshape(-1)[edges]), rtol=1e-11, atol=1e-11)
    assert not any(tensor.requires_grad for tensor in found) and found[0].is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 7, 8, 9, 16, 35])
@pytest.mark.parametrize("width", [1, 7, 8, 12, 24, 33])
@pytest.mark.parametrize("step", [1, 2])
def test_images_are_laid_out_by_channels_and_nothing_beside_them(dtype, channels, width, step):
    """Of either memory format, with every or every other column, by squares and where there are fewer than a square has."""
    for form in (torch.channels_last, torch.contiguous_format):
        images = torch.randn(3, channels, 2, width * step, dtype=dtype).to(memory_format=form)[..., ::step]
        room = torch.full((channels + 2, 3, 4, width + 2), -1.0, dtype=dtype)
        right = room.clone()
        right[1:-1, :, 1:3, 1:-1] = images.transpose(0, 1)
        lay(room[1:-1, :, 1:3, 1:-1].transpose(0, 1), images)
        assert torch.equal(room, right)


@pytest.mark.parametrize("how", [Filter((2, 2), (2, 2)), Filter((3, 2), (4, 1)), Filter((2, 2), dilation=(6, 5)),
                                 Filter((2, 3), (2, 3), dilation=(3, 2)), Filter((1, 2), (3, 3), (0, 1))])
def test_what_no_tap_sees_is_no_taps(how):
    """Pixels beyond the last window, or between taps that are far apart: infinite ones leave all as it is."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 9, 8, dtype=torch.float64), torch.randn(4, 3, *how.taps, dtype=torch.float64)
    ones = functional.conv2d(torch.ones_like(x), torch.ones_like(weight), None, how.stride, how.padding, how.dilation)
    unseen = torch.nn.grad.conv2d_input(x.shape, torch.ones_like(weight), torch.ones_like(ones), how.stride, how.padding,
                                        how.dilation) == 0
    products = ConvProducts.of(torch.arange(weight.numel()).numpy(), tuple(weight.shape), how)
    kept, gradient, found = products.keep(weight.reshape(-1)), torch.randn_like(ones), []
    for value in (0.0, torch.nan):
        x[unseen] = value
        found.append((products.forward(x, kept), *products.gradients(gradient, x, kept)))
    assert unseen.any() and not found[1][1][unseen].any()
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("how", [Filter((3, 3), padding=(1, 1)), Filter((1, 4), dilation=(1, 9)), Filter((3, 2), (2, 1))])
def test_no_two_threads_write_to_the_same_numbers(how, monkeypatch):
    """Of each turn in which rows are shared out in parts, each number is written by one piece of the work alone."""
    monkeypatch.setattr(numba_kernels, "LONG", 32)
    monkeypatch.setattr(numba_kernels, "PART", 16)
    torch.manual_seed(0)
    shape = (6, 40, *how.taps)
    products = ConvProducts.of((torch.rand(torch.Size(shape).numel()) < 0.5).nonzero()[:, 0].numpy(), shape, how)
    kept, rows = products.keep(torch.ones(products.structure.edges)), rows_of(how, torch.empty(5, 40, 9, 14))
    outputs, inputs = torch.ones(6, rows.length), torch.ones(40, len(rows.phases), rows.stride)
    turns = list[torch.Tensor]()

    def one_by_one(result, untouched):
        def share(work, units, threads):
            written = []
            for unit in range(units):
                result.fill_(untouched)
                work(unit, unit + 1)
                written.append(result.isfinite() & (result != 0))
            turns.append(torch.stack(written).sum(0))
        return share

    result = torch.empty_like(outputs)
    monkeypatch.setattr(numba_kernels, "share", one_by_one(result, torch.nan))
    numba_kernels.gather(products.structure, kept, inputs, rows.starts, result)
    result = torch.empty_like(inputs)
    monkeypatch.setattr(numba_kernels, "share", one_by_one(result, 0.0))
    numba_kernels.scatter(products.structure, kept, outputs, rows.starts, result)
    assert [int(turn.max()) for turn in turns] == [1, 1, 1] and turns[0].all()


@pytest.mark.parametrize("how", [Filter((3, 3), padding=(1, 1)), Filter((3, 3), (2, 2), (1, 1)), Filter((1, 1)),
                                 Filter((3, 2), dilation=(5, 9))])
@pytest.mark.parametrize(("images", "size"), [(64, 40), (8, 12)])
def test_nothing_depends_on_the_number_of_threads(how, images, size):
    """Neither where rows are so long that threads take parts of them, nor where they take outputs and blocks of inputs."""
    torch.manual_seed(0)
    shape = (24, 70, *how.taps)
    edges = (torch.rand(torch.Size(shape).numel()) < 0.3).nonzero()[:, 0]
    products, before = ConvProducts.of(edges.numpy(), shape, how), torch.get_num_threads()
    x = torch.randn(images, 70, size, size + 15).to(memory_format=torch.channels_last)
    assert (rows_of(how, x).length >= numba_kernels.LONG) == (images == 64)
    kept, found = products.keep(torch.randn(len(edges))), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = products.forward(x, kept)
            found.append((y, *products.gradients(torch.ones_like(y) + y, x, kept)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for others in found[1:] for one, other in zip(found[0], others, strict=True))

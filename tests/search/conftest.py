"""The kernels of layers that compute on their edges alone."""

import pytest

from popup.products.numba_kernels import NumbaKernels
from popup.products.torch_kernels import TorchKernels
from popup.search import compute

KERNELS = {"torch": TorchKernels, "numba": NumbaKernels}


@pytest.fixture(params=KERNELS)
def kernels(request, monkeypatch):
    """The name of the kernels that layers compute by."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(compute, "best_kernels", KERNELS[request.param])
    return request.param

"""What numba has stored on disk is never of another text than what is here."""

import hashlib
from pathlib import Path

import pytest


def test_kernels_know_the_operations_that_they_are_written_in():
    """Numba looks at the file of a kernel only: a change of choice.py or vectors.py must change it too, by this digest."""
    compiled = pytest.importorskip("popup.products.compiled", exc_type=ImportError)
    text = b"".join((Path(compiled.__file__).parent / name).read_bytes() for name in ("choice.py", "vectors.py"))
    assert hashlib.sha256(text).hexdigest()[:16] == compiled.WRITTEN_IN


def test_kernels_that_cannot_be_stored_are_compiled_all_the_same():
    """As in an installation that cannot be written to: for code without a file numba has no place either."""
    compiled = pytest.importorskip("popup.products.compiled", exc_type=ImportError)
    names = {}
    exec("def double(number):\n    return 2 * number", names)
    assert compiled._kernel(names["double"])(3) == 6

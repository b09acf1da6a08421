"""In a loop of one's own under DistributedDataParallel all ranks search one source, or are told that they do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("sources", ["same", "other"])
def test_ranks_with_other_sources_are_told(sources, tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "tests/search/other_sources.py"), str(tmp_path), sources],
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                          check=False, timeout=120)
    told = (tmp_path / "rank1").read_text()
    if sources == "same":
        assert (tmp_path / "rank0").read_text() == told == "done", done.stderr
    else:
        assert told.startswith("0.weight has another source on this rank than on rank 0: attach with the same seed")

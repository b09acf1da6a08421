"""In a loop of one's own under DistributedDataParallel all ranks search one source, or are told that they do not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_ranks_with_other_sources_are_told(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "tests/search/other_sources.py"), str(tmp_path)],
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                          check=False, timeout=120)
    assert [(tmp_path / f"same{rank}").read_text() for rank in (0, 1)] == ["done", "done"], done.stderr
    assert (tmp_path / "other1").read_text().startswith(
        "0.weight has another source on this rank than on rank 0: attach with the same seed")

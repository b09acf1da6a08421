"""accelerate: its script runs and goes on from a checkpoint to the same scores."""

import warnings

import pytest

from popup.search.network import search_of
from tests.trainers.scripts import run, scripts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("accelerate")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_script_runs_and_its_search_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = scripts("accelerate")
    found = run(script)
    assert search_of(found["net"]).steps == search_of(found["resumed"]).steps == 24
    assert search_of(found["net"]).progress == search_of(found["resumed"]).progress == 1

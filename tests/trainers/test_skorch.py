"""skorch: its script runs and goes on from a checkpoint to the same scores."""

import warnings

import pytest

from popup.search.network import search_of
from tests.trainers.scripts import run, scripts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("skorch")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_script_runs_and_its_search_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = scripts("skorch")
    found = run(script)
    searches = [search_of(found[name].module_) for name in ("whole", "resumed")]
    assert [search.steps for search in searches] == [24, 24] and [search.progress for search in searches] == [1, 1]

"""A method that was written before there were code books is refused, where a part of it would be asked no more."""

import pytest
from torch import nn

from popup import UsageError, attach
from popup.search.contract import FORMER, unasked
from popup.search.methods import METHODS
from popup.search.methods.method import Method
from popup.search.settings import SearchSettings


@pytest.mark.parametrize("name", FORMER)
def test_it_is_refused_by_name(name, monkeypatch):
    monkeypatch.setitem(METHODS, "former", type("Former", (Method,), {name: lambda self, *arguments: None}))
    with pytest.raises(UsageError, match=rf"^method former defines {name}\(\)"):
        attach(nn.Linear(6, 4), er_p=0.5, method="former")


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_define_nothing_of_that(method):
    assert not unasked(METHODS[method](SearchSettings(method)))

"""What is told when there is not enough memory."""

import numpy as np
import pytest
import torch

from models import MODELS
from popup.lab.commands import command
from popup.lab.commands.command import main
from popup.lab.training.stop import out_of_memory

MOST = 1 << 46  # more numbers than addresses


@pytest.mark.parametrize("ask", [np.empty, torch.empty, lambda size: bytearray(8 * size)])
def test_it_is_known_in_the_words_of_each(ask):
    with pytest.raises((MemoryError, RuntimeError)) as told:
        ask(MOST)
    assert out_of_memory(told.value)


def test_other_errors_are_others():
    with pytest.raises(RuntimeError) as told:
        torch.zeros(2) @ torch.zeros(3)
    assert not out_of_memory(told.value) and not out_of_memory(ValueError("allocate"))


@pytest.mark.parametrize("ask", [np.empty, torch.empty])
def test_a_command_ends_with_one_line(ask, monkeypatch, capsys):
    monkeypatch.setitem(command.COMMANDS, "law", lambda arguments, models: ask(MOST))
    assert main(["law"], MODELS) == 1
    told = capsys.readouterr().err
    assert told.startswith("popup: the run failed: out of memory: ") and told.count("\n") == 1


def test_a_command_that_asks_for_too_much(capsys, tmp_path):
    assert main(["law", "--er-p", "0.9", "--epsilon", "0.1", "--parameters", "20", "--all-at-once", "999999999999", "--out",
                 str(tmp_path)], MODELS) == 1
    assert "out of memory: " in capsys.readouterr().err


def test_what_nobody_has_thought_of_has_its_traceback(monkeypatch):
    monkeypatch.setitem(command.COMMANDS, "law", lambda arguments, models: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["law"], MODELS)

"""The help of each command at any width, what is said of a word that is not known, and bars that are bars."""

import re

import pytest
from tqdm import tqdm

import popup
from models import MODELS
from popup.lab.commands import single
from popup.lab.commands.command import COMMANDS, main
from popup.lab.config import Config
from popup.lab.machine import Machine, versions
from popup.lab.runs import sweep
from popup.lab.runs.flow import perform
from popup.lab.runs.laboratory import Laboratory
from popup.lab.runs.prepared import prepare

EVERY = ["", *COMMANDS, "worker"]


def help_of(command, capsys, monkeypatch, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"], MODELS)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize("columns", [60, 80, 110])
def test_help_stays_within_the_terminal_and_leaks_nothing(command, columns, capsys, monkeypatch):
    text = help_of(command, capsys, monkeypatch, columns)
    assert max(map(len, text.splitlines())) <= columns
    assert text.startswith(f"usage: {f'python run.py {command}'.strip()}")
    for leak in ("(default: )", "(default: '')", "options options", "workeroptions", "1.4142135"):
        assert leak not in text
    description = text.split("\n\n")[1]
    assert not re.match(r"\s", description), "no indentation of a docstring"


@pytest.mark.parametrize(("command", "usage"), [
    ("export", "python run.py export TICKET OUT [options]"), ("diff", "python run.py diff TICKET OTHER"),
    ("worker", "python run.py worker DIR [options]"), ("report", "python run.py report DIR [options]")])
def test_usage_names_the_arguments_and_so_does_the_line_on_their_lack(command, usage, capsys, monkeypatch):
    assert help_of(command, capsys, monkeypatch).splitlines()[0] == f"usage: {usage}"
    assert main([command], MODELS) == 2
    line = capsys.readouterr().err
    assert line.endswith(f"missing: {usage}\n") and line.count("\n") == 1


def test_the_help_has_each_option_with_its_default(capsys, monkeypatch):
    text = " ".join(help_of("", capsys, monkeypatch).split())
    for option in ("--er-p X ...", "--[no-]redistribute", "--widths N ...", "(default: 1.41421)", "(default: yes)"):
        assert option in text
    assert "--role" not in text
    plain = re.search(r"--lr X .*?\(default: ([^)]*)\)", text)[1]
    recipe = re.search(r"--lr X .*?\(default: ([^)]*)\)", " ".join(
        help_of("--recipe conv4_cifar10", capsys, monkeypatch).split()))[1]
    assert (plain, recipe) == ("0.1", "0.4")


@pytest.mark.parametrize(("arguments", "words"), [
    ("reprot DIR", "unknown command 'reprot': did you mean 'report'?"), ("exprot a b", "did you mean 'export'?"),
    ("wroker DIR", "did you mean 'worker'?"), ("--densty erk", "unknown option --densty: did you mean --density?"),
    ("--er_pp 1", "did you mean --er-p?"), ("show a --modl x", "python run.py show --help lists the options"),
    ("export a b --modl x", "did you mean --model?"), ("--no-seed", "unknown option --no-seed"),
    ("--zzz", "unknown option --zzz (python run.py --help"), ("--k -inf", "k is -inf: it must be a number in"),
    ("-k 0.5", "unknown option -k: did you mean --k?"), ("-er-p=0.2", "unknown option -er-p: did you mean --er-p?"),
    ("report -x", "unknown option -x (python run.py report --help"),
    ("--continue=x", "there is no option --continue, and none is"),
    ("--resume", "none is needed: the same command again goes on where it was"),
    ("recipes more", "popup: Unrecognized options: more (python run.py recipes --help")])
def test_a_word_that_is_not_known_is_told_with_the_one_that_was_meant(arguments, words, capsys):
    assert main(arguments.split(), MODELS) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1 and not re.search("[╭╮╰╯─│]", line)


@pytest.mark.parametrize(("line", "cells"), [(sweep.LINE, 24), (single.LINE, 20)])
def test_a_bar_is_a_bar_at_100_columns(line, cells):
    drawn = tqdm.format_meter(140, 288, 100.0, ncols=100, bar_format=line, prefix="epoch 150 of 288",
                              postfix="2 failed; redrawn_weights p=0.05 k=0.25 seed 17 method gem_miner and 63 more")
    assert len(drawn) <= 100 and len(re.search(r"\|(.*?)\|", drawn)[1]) == cells


def test_a_run_tells_each_step_of_an_epoch(tmp_path):
    config = Config().replace(epochs=2, widths=(8,), compute="dense")
    heard = []
    laboratory = Laboratory(MODELS, Machine("cpu", 1), tmp_path)
    perform(laboratory, prepare(laboratory, config), lambda metrics: heard.append(metrics["epoch"]), heard.append)
    steps = [epochs for epochs in heard if isinstance(epochs, float)]
    assert steps == sorted(steps) and len(steps) == 2 * 44 and steps[0] == pytest.approx(1 / 44) and steps[-1] == 2.0
    assert heard[44] == 1 and heard[-1] == 2


def test_a_run_that_goes_on_says_so(tmp_path, capsys, monkeypatch):
    given = ["--epochs", "2", "--widths", "8", "--threads", "1", "--checkpoint-seconds", "0", "--out", str(tmp_path)]

    class Cut(single.Progress):
        def __call__(self, metrics):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(single, "Progress", Cut)
        with pytest.raises(KeyboardInterrupt):
            main(given, MODELS)
    assert "goes on from its checkpoint" not in capsys.readouterr().out and list(tmp_path.glob("*/checkpoint.safetensors"))
    assert main(given, MODELS) == 0
    out = capsys.readouterr().out
    assert out.index("goes on from its checkpoint, whose epochs are told again") < out.index("epoch   2 of 2")


def test_the_version_is_told_with_those_that_a_result_depends_on(capsys):
    assert main(["--version"], MODELS) == 0
    told = dict(part.split(" ", 1) for part in capsys.readouterr().out.strip().split(", "))
    assert told == versions() and told["popup"] == popup.__version__

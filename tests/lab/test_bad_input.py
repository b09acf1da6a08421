"""Bad input on the command line: one clear line on stderr, exit code 2, no traceback, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest

from models import MODELS
from popup.lab.commands.command import main

ROOT = Path(__file__).parents[2]

CASES = [  # arguments, and words that the line must hold
    ("--er-p 0", ["er_p", "0", "(0, 1]"]),
    ("--er-p -0.1", ["er_p", "-0.1", "(0, 1]"]),
    ("--er-p 1.5", ["er_p", "1.5", "(0, 1]"]),
    ("--er-p nan", ["er_p", "nan"]),
    ("--er-p inf", ["er_p", "inf"]),
    ("--er-p half", ["--er-p", "half"]),
    ("--er-p", ["--er-p", "no value"]),
    ("--er-p 0.2,0.5", ["--er-p", "0.2,0.5"]),
    ("--er-p 1e-12", ["er_p", "no edge"]),
    ("--k 0", ["k", "(0, 1]"]),
    ("--k 1.0001", ["k", "1.0001"]),
    ("--k -1", ["k", "-1"]),
    ("--k nan", ["k", "nan"]),
    ("--k many", ["--k", "many"]),
    ("--density unifrom", ["density", "unifrom", "did you mean 'uniform'", "pyramidal"]),
    ("--density given", ["density", "given"]),
    ("--model mpl", ["model", "mpl", "did you mean 'mlp'"]),
    ("--model conv6 --widths 1 1 1 1 1", ["conv6", "8"]),
    ("--dataset digit", ["dataset", "digit", "did you mean 'digits'"]),
    ("--dataset imagenett", ["dataset", "imagenett", "did you mean 'imagenet'", "digits"]),
    ("--dataset cifar10 --data-dir /nowhere", ["cifar10", "/nowhere", "--download", "--data-dir"]),
    ("--dataset folder:/nowhere", ["/nowhere", "train/CLASS"]),
    ("--dataset nowhere.at_all:load", ["nowhere.at_all:load", "MODULE:FUNCTION"]),
    ("--image-size 32", ["image_size", "32", "digits", "folder"]),
    ("--image-size -1", ["image_size", "-1"]),
    ("--validation 1", ["validation", "1", "0.9"]),
    ("--validation -0.1", ["validation", "-0.1"]),
    ("--validation 0.0001", ["validation", "0.0001", "raise it"]),
    ("--model torchvision:resnet19", ["torchvision:resnet19", "resnet18"]),
    ("--model nowhere.at_all:build", ["nowhere.at_all:build", "MODULE:FUNCTION"]),
    ("--model vgg11", ["vgg11", "[1, 8, 8]"]),
    ("--model torchvision:squeezenet1_1 --width 2", ["torchvision:squeezenet1_1", "--width"]),
    ("--width 0", ["width", "0"]),
    ("--width nan", ["width", "nan"]),
    ("--weights kaiming", ["weights", "kaiming_normal"]),
    ("--mask exakt", ["mask", "did you mean 'exact'"]),
    ("--mask snip --density erk", ["density", "erk", "snip", "leave density out"]),
    ("--mask synflow", ["synflow", "signed_constant", "kaiming_normal"]),
    ("--mask snip --er-p 1e-5", ["er_p", "1e-05", "3 layers", "raise er_p"]),
    ("--mask given", ["given", "no seed", "bernoulli"]),
    ("--scale last", ["scale", "last", "final"]),
    ("--scope layers", ["scope", "did you mean 'layer'"]),
    ("--method edge-popup", ["method", "did you mean 'edge_popup'"]),
    ("--method edge_popup biprop --locked 0.2", ["--locked", "does not matter", "--method frozen"]),
    ("--floor 0.1", ["--floor", "does not matter", "--scope global"]),
    ("--k-start 0.8", ["--k-start", "does not matter", "--anneal linear"]),
    ("--method random sampled --anneal cubic", ["--anneal", "does not matter", "--method edge_popup or averaged"]),
    ("--gain 0", ["gain", "0"]),
    ("--gain inf", ["gain", "inf"]),
    ("--score-scale -1", ["score_scale", "-1"]),
    ("--seed -1", ["seed", "-1"]),
    ("--seed 1.5", ["--seed", "1.5"]),
    ("--seeds 0", ["seeds", "0"]),
    ("--widths 0", ["width", "0"]),
    ("--widths 64 -3", ["width", "-3"]),
    ("--widths wide", ["--widths", "wide"]),
    ("--epochs 0", ["epochs", "0"]),
    ("--epochs two", ["--epochs", "two"]),
    ("--batch-size 1", ["batch_size", "2 or more"]),
    ("--lr 0", ["lr", "0"]),
    ("--lr fast", ["--lr", "fast"]),
    ("--momentum 1", ["momentum", "1"]),
    ("--weight-decay -1", ["weight_decay", "-1"]),
    ("--warmup 99", ["warmup", "99"]),
    ("--label-smoothing 1", ["label_smoothing", "1"]),
    ("--recipe mlp_digit", ["recipe", "mlp_digit", "did you mean 'mlp_digits'"]),
    ("--recipe", ["--recipe"]),
    ("--augment rotate", ["augment", "rotate", "crop"]),
    ("--device cuda:99", ["device", "cuda:99", "cpu"]),
    ("--device tpu9000", ["device", "tpu9000", "cpu"]),
    ("--device meta", ["device", "meta", "cpu"]),
    ("--threads -1", ["threads", "-1"]),
    ("--out /dev/null/runs", ["--out", "/dev/null/runs"]),
    ("--out /proc/nowhere", ["--out", "/proc/nowhere"]),
    ("--sparsity 0.9", ["--sparsity", "--help"]),
    ("ticket", ["ticket"]),
]


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_exit_code_2(arguments, words, capsys, tmp_path):
    given = arguments.split()
    where = [] if "--out" in given else ["--out", str(tmp_path / "runs")]
    assert main([*given, *where], MODELS) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("popup: "), error
    for word in words:
        assert word in error
    assert not list(tmp_path.rglob("*.json"))


def test_the_process_itself_exits_with_2_and_one_line():
    done = subprocess.run([sys.executable, "run.py", "--k", "2"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "popup: k is 2.0: it must be a number in (0, 1]\n"
    assert done.stdout == ""

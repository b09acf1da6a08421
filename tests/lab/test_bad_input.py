"""Bad input on the command line: one clear line on stderr, exit code 2, no traceback, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import MODELS
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import main
from popup.search.methods import METHODS
from popup.source.densities import DENSITIES
from popup.source.masks import COMPUTED, MASKS
from popup.source.weights import WEIGHTS

ROOT = Path(__file__).parents[2]

CASES = [  # arguments, and words that the line must hold
    ("--er-p 0", ["er_p", "0", "(0, 1]"]),
    ("--er-p -0.1", ["er_p", "-0.1", "(0, 1]"]),
    ("--er-p 1.5", ["er_p", "1.5", "(0, 1]"]),
    ("--er-p nan", ["er_p", "nan"]),
    ("--er-p inf", ["er_p", "inf"]),
    ("--er-p half", ["--er-p: 'half' is no number", "numbers with blanks between"]),
    ("--er-p", ["--er-p", "no value"]),
    ("--er-p 0.2,0.5", ["--er-p", "0.2,0.5"]),
    ("--er-p 1e-12", ["er_p", "no edge"]),
    ("--k 0", ["k", "(0, 1]"]),
    ("--k 1.0001", ["k", "1.0001"]),
    ("--k -1", ["k", "-1"]),
    ("--k nan", ["k", "nan"]),
    ("--k many", ["--k", "many"]),
    ("--density unifrom", ["density", "unifrom", "did you mean 'uniform'", "pyramidal"]),
    ("--density given", ["density", "given", "popup.attach(net, density=", "erk"]),
    ("--density foo", [f"unknown density 'foo': allowed are {', '.join(DENSITIES)} (END)"]),
    ("--weights foo", [f"unknown weights 'foo': allowed are {', '.join(WEIGHTS)} (END)"]),
    ("--mask foo", [f"unknown mask 'foo': allowed are {', '.join([*MASKS, *COMPUTED])} (END)"]),
    ("--weights given", ["given", "popup.attach(net, weights='given')"]),
    ("--model mpl", ["model", "mpl", "did you mean 'mlp'"]),
    ("--model conv6 --widths 1 1 1 1 1", ["conv6", "8"]),
    ("--model lenet5 --widths 10 20", ["lenet5 takes 3 widths", "there are 2"]),
    ("--model vit --widths 12", ["vit takes 2 widths", "there are 1"]),
    ("--dataset digit", ["dataset", "digit", "did you mean 'digits'"]),
    ("--dataset imagenett", ["dataset", "imagenett", "did you mean 'imagenet'", "digits"]),
    ("--dataset cifar10 --data-dir /nowhere --model nonet", ["unknown model 'nonet'"]),
    ("--dataset cifar10 --data-dir /nowhere --model mlp nonet", ["unknown model 'nonet'"]),
    ("--dataset cifar10 --data-dir /nowhere", ["cifar10", "/nowhere", "--download", "--data-dir"]),
    ("--dataset folder:/nowhere", ["/nowhere", "train/CLASS"]),
    ("--dataset folder:~nobody_at_all", ["~nobody_at_all", "home directory", "whole path"]),
    ("--dataset cifar10 --data-dir ~nobody_at_all", ["~nobody_at_all", "home directory"]),
    ("--dataset nowhere.at_all:load", ["nowhere.at_all:load", "MODULE:FUNCTION"]),
    ("--image-size 32", ["image_size", "32", "digits", "folder"]),
    ("--image-size -1", ["image_size", "-1"]),
    ("--image-size 1000000", ["image_size", "1000000", "at most 4096"]),
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
    ("--method built", ["method", "'built'", ", ".join(METHODS) + " (END)"]),
    ("--method edge_popup biprop --locked 0.2", ["--locked", "does not matter", "--method frozen"]),
    ("--floor 0.1", ["--floor", "does not matter", "--scope global"]),
    ("--k-start 0.8", ["--k-start", "does not matter", "--anneal linear"]),
    ("--anneal cubic --k-start 0.2", ["k_start", "0.2", "[0.5, 1]", "--k"]),
    ("--anneal cubic --k-start 0.5 --k 0.25 0.6", ["k_start is 0.5 and k is 0.6"]),
    ("--final-density 0.15 --er-p 0.2 --anneal cubic --k-start 0.5", ["k is 0.75", "a smaller --final-density"]),
    ("--method random sampled --anneal cubic", ["--anneal", "does not matter", "--method edge_popup or averaged"]),
    ("--no-redistribute", ["--no-redistribute", "does not matter", "--density"]),
    ("--mask snip --no-redistribute", ["--no-redistribute", "does not matter"]),
    ("--k 0.5 --final-density 0.1", ["--k", "--final-density", "exclude each other"]),
    ("--final-density --er-p 0.2", ["--final-density", "no value"]),
    ("--controls random none", ["controls", "random none", "none excludes random"]),
    ("--controls default random", ["controls", "default excludes random"]),
    ("--hours 9", ["--hours", "without --cluster"]),
    ("--cluster none --partition gpu", ["--partition", "without --cluster"]),
    ("--cluster local --sbatch qos=low", ["--sbatch", "--cluster local", "--cluster slurm"]),
    ("--cluster local --plan-only", ["--plan-only", "--cluster local", "exclude each other"]),
    ("--cluster local --gpus 1000000000000000000000", ["gpus", "1024"]),
    ("--cluster slurm --hours 1e307", ["hours", "1e+307", "8784"]),
    ("--gain 0", ["gain", "0"]),
    ("--gain inf", ["gain", "inf"]),
    ("--gain 1.1 attention=2.8", ["'attention' is of no layer", "1.weight"]),
    ("--gain 1=x", ["gain", "'1=x'", "PATTERN=NUMBER"]),
    ("--method coats --coats 1 --coat-rule even", ["--coat-rule does not matter here", "--coats 2 or more"]),
    ("--count floor", ["count", "floor", "did you mean 'drop_floor'"]),
    ("--connected --mask snip", ["connected", "snip", "bernoulli"]),
    ("--finetune-epochs -1", ["finetune_epochs", "-1"]),
    ("--score-scale -1", ["score_scale", "-1"]),
    ("--seed -1", ["seed", "-1"]),
    ("--seed 1.5", ["--seed: '1.5' is no whole number"]),
    ("--seeds x", ["--seeds: 'x' is no whole number"]),
    ("--widths 1.5 2", ["--widths: 1.5 2 are no whole numbers"]),
    ("--seeds 0", ["seeds", "0"]),
    ("--widths 0", ["width", "0"]),
    ("--widths 64 -3", ["width", "-3"]),
    ("--widths wide", ["--widths", "wide"]),
    ("--epochs 0", ["epochs", "0"]),
    ("--epochs two", ["--epochs", "two"]),
    ("--batch-size 1", ["batch_size", "2 or more"]),
    ("--lr 0", ["lr", "0"]),
    ("--lr fast", ["--lr: 'fast' is no number"]),
    ("--momentum 1", ["momentum", "1"]),
    ("--weight-decay -1", ["weight_decay", "-1"]),
    ("--warmup 99", ["warmup", "99"]),
    ("--label-smoothing 1", ["label_smoothing", "1"]),
    ("--recipe mlp_digit", ["recipe", "mlp_digit", "did you mean 'mlp_digits'"]),
    ("--recipe", ["--recipe"]),
    ("--augment rotate", ["augment", "rotate", "crop"]),
    ("--augment crop flip crop", ["augment", "crop flip crop", "crop is there twice"]),
    ("--device cuda:99", ["device", "cuda:99", "cpu"]),
    ("--device tpu9000", ["device", "tpu9000", "cpu"]),
    ("--device meta", ["device", "meta", "cpu"]),
    ("--threads -1", ["threads", "-1"]),
    ("--threads 1e30", ["--threads", "1e30"]),
    ("--threads 100000000000000000000", ["threads", "1024"]),
    ("--decoders 99999999", ["decoders", "1024"]),
    ("--accumulate 3", ["a batch of 32 images", "to 3 equal parts"]),
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
        assert word in error.replace("\n", " (END)")
    assert not list(tmp_path.rglob("*.json"))


def test_the_process_itself_exits_with_2_and_one_line():
    done = subprocess.run([sys.executable, "run.py", "--k", "2"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "popup: k is 2.0: it must be a number in (0, 1]\n"
    assert done.stdout == ""


def test_what_only_some_of_a_grid_uses_is_taken(tmp_path):
    for options in ("--density uniform erk --no-redistribute", "--anneal none cubic --k-start 0.5",
                    "--recipe conv4_cifar10 --dataset digits --final-density 0.1"):
        parse([*options.split(), "--controls", "none", "--out", str(tmp_path)], "", {})


def test_a_part_of_a_runs_name_that_does_nothing_is_told(tmp_path, capsys):
    arguments = ["--weight-lr", "0.1", "--epochs", "1", "--widths", "8", "--out", str(tmp_path), "--plan-only"]
    for more, told in (["--controls", "random"], True), (["--controls", "random_trained"], False), (["--seeds", "2"], False):
        assert main([*arguments, *more], MODELS) == 0
        assert ("--weight-lr does nothing here" in capsys.readouterr().out) is told


@pytest.mark.parametrize(("options", "told"), [
    ("--method random --lr 0.5", "--lr"), ("--method random --momentum 0.5 --controls source", "--momentum"),
    ("--method random --lr 0.5 --controls random_trained", ""), ("--method random edge_popup --lr 0.5 --controls none", "")])
def test_a_rate_at_which_nothing_learns_is_told(options, told, tmp_path, capsys):
    assert main([*options.split(), "--plan-only", "--out", str(tmp_path)], MODELS) == 0
    out = capsys.readouterr().out
    assert (f"{told} does nothing here: neither scores learn, by --method random, nor weights" in out) if told else (
        "does nothing" not in out)


def test_a_relative_folder_is_one_run_wherever_it_goes_on(tmp_path, monkeypatch):
    (tmp_path / "here" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (one,) = parse(["--dataset", "folder:here/images"], "", {}).configs
    monkeypatch.chdir(tmp_path / "here")
    (other,) = parse(["--dataset", "folder:images"], "", {}).configs
    assert one.hash() == other.hash() and one.task.dataset == f"folder:{tmp_path}/here/images"
    for name in (f"folder:{tmp_path}/../{tmp_path.name}/here", "folder:~/images", "digits", "own:load"):
        assert parse(["--dataset", name], "", {}).configs[0].task.dataset == name, "their runs keep their names"


def test_a_terminal_of_ascii_gets_the_table(tmp_path):
    arguments = ["--epochs", "1", "--widths", "8", "--seeds", "2", "--controls", "none", "--workers", "1", "--out"]
    done = subprocess.run([sys.executable, "run.py", *arguments, str(tmp_path)], cwd=ROOT, capture_output=True, check=False,
                          env={**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert b"mean ?half" in done.stdout and "±" in (tmp_path / "report.txt").read_text(encoding="utf-8")


def test_the_help_keeps_its_examples_on_lines_of_their_own(capsys):
    with pytest.raises(SystemExit):
        main(["--help"], MODELS)
    lines = capsys.readouterr().out.splitlines()
    assert "    python run.py --er-p 0.2 --k 0.5 --density erk" in lines
    assert any(line.startswith("    of a ticket ") for line in lines)

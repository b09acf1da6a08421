"""Gains by patterns of names: in the source, in tickets, on the command line; names and bytes of before stay."""

from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

import models
from models import MODELS
from popup import UsageError, attach, extract, load, verify
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.source.gains import as_one, as_words, check_gain, from_words, gain_of, read
from popup.source.layer_source import draw_source
from popup.source.layers import find_layers
from popup.source.recipe import Recipe

IMAGE = (1, 8, 8)


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 3))


def sizes(recipe, biases=False):
    """The one |W| of each layer."""
    source = draw_source(recipe, find_layers(net(), biases))
    return {layer.spec.name: float(np.unique(np.abs(layer.values)).item()) for layer in source}


def test_layers_have_the_gain_of_their_pattern_and_the_others_the_plain_number():
    one, many = (sizes(Recipe(er_p=0.9, gain=gain)) for gain in (1.1, "1.1 1=2.2 2.weight=0.55"))
    assert {name: round(many[name] / one[name], 5) for name in one} == {
        "0.weight": 1.0, "1.0.weight": 2.0, "1.1.weight": 2.0, "2.weight": 0.5}


def test_the_usual_gain_stays_where_no_number_is_given():
    assert as_one({"1": 2.8}) == f"{sqrt(2)!r} 1=2.8" and gain_of(as_one({"1": 2.8}), "0.weight") == sqrt(2)
    assert as_one({}) == sqrt(2) and as_one({"*": 1.1}) == 1.1 and read(1.1) == {"*": 1.1}


def test_the_same_gains_are_one_value_in_whatever_order_they_come():
    wanted = "1.1 a=1.0 b.*=2.8"
    for words in (["b.*=2.8", "1.1", "a=1"], ["1.1", "a=1.0", "b.*=2.80"], ["a=1e0", "b.*=2.8", "*=1.1"]):
        assert as_one(from_words(words)) == wanted
    assert as_one(read(wanted)) == wanted and as_words(wanted) == ("1.1", "a=1.0", "b.*=2.8")


def test_biases_that_are_layers_have_their_weights_gain():
    found = sizes(Recipe(gain="1.0 2=3.0", bias="search", er_p=1.0), True)
    assert found["2.bias"] == found["2.weight"] and found["0.bias"] == found["0.weight"]


@pytest.mark.parametrize(("gain", "words"), [
    ({"attn.*": 2.8}, "'attn.*' is of no layer: there are 0.weight, 1.0.weight, 1.1.weight, 2.weight"),
    ({"0": 2.8, "0.*": 2.0}, "'0.weight' has the value 2.8 by the pattern '0' and 2.0 by '0.*'"),
    ({"0": 0.0}, "gain of 0 is 0.0"), ({"*": -1.0}, "gain is -1.0"), ({"0": "large"}, "gain of 0 is 'large'"),
    ({"a b": 1.0}, "the pattern 'a b'"), ({"0=1": 1.0}, "the pattern '0=1'"), ({3: 1.0}, "the pattern 3"),
    ({"0": 1e200}, "gain is 1e"), ("1.1", "write it as 1.1"), ("1.1 0=2", "write it as '1.1 0=2.0'"), ("0=2.8", "write it as"),
    ("1.1 0=x", "'0=x' is no number")])
def test_what_is_no_gain_is_refused_and_nothing_is_changed(gain, words):
    plain = net()
    with pytest.raises(UsageError) as caught:
        attach(plain, er_p=0.5, gain=gain)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_a_ticket_keeps_them_and_is_verified(tmp_path):
    def vit():
        return models.vit(IMAGE, 10, width=1 / 16)

    searched = attach(vit(), er_p=0.5, k=0.5, gain={"*": np.float64(1.1), "*.attention.qkv": np.float32(3.0)})
    path = extract(searched).save(tmp_path / "ticket.safetensors")
    ticket = load(path)
    assert ticket.recipe.gain == "1.1 *.attention.qkv=3.0" and verify(ticket).holds
    plain = ticket.apply(vit())
    reference = extract(attach(vit(), er_p=0.5, k=0.5, gain=1.1)).apply(vit())
    for layer in ticket.layers:
        factor = 3.0 / 1.1 if "qkv" in layer.spec.name else 1.0
        both = [net.get_parameter(layer.spec.name).abs().max() for net in (plain, reference)]
        torch.testing.assert_close(both[0], both[1] * factor)


def test_a_damaged_gain_in_a_file_is_told(tmp_path):
    for gain in ("1.1", "x", "1.1 0=2", [1.1], None):
        with pytest.raises(ValueError):
            check_gain(gain)


def test_the_command_line_takes_a_number_patterns_or_both(tmp_path, capsys):
    def gains(*words):
        return [config.source.gain for config in parse(words, "", {}).configs]

    assert gains() == [sqrt(2)] and gains("--gain", "1.1") == [1.1] and gains("--gain=1.1", "--k", "0.5") == [1.1]
    assert gains("--gain", "3=2.8", "1.1") == ["1.1 3=2.8"] and gains("--gain", "*.attn.*=2.8") == [f"{sqrt(2)!r} *.attn.*=2.8"]
    assert gains("--recipe", "conv4_cifar10", "--dataset", "digits", "--model", "mlp") == [1.1]
    quick = ["--epochs", "1", "--widths", "8", "--out", str(tmp_path)]
    for words, said in ((["x"], "'x' is no number and no PATTERN=NUMBER"), (["=2"], "'=2' is no number and"),
                        (["1", "2"], "two values"), (["0"], "gain is 0"),
                        (["5=1"], "'5' is of no layer"), ([], "gain has no value"), (["1=inf"], "gain of 1 is inf")):
        assert main([*quick, "--gain", *words], MODELS) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert main([*quick, "--gain", "1.1", "1=2.0"], MODELS) == 0
    assert main([*quick, "--gain", "1=2.0", "1.1"], MODELS) == 0
    assert "finished before" in capsys.readouterr().out
    (path,) = tmp_path.glob("*/ticket.safetensors")
    assert main(["show", str(path)], MODELS) == 0 and "gain 1.1 1=2.0" in capsys.readouterr().out


def test_runs_of_before_keep_their_names_and_a_config_is_read_back():
    assert Config().hash() == "d39ff252add1"
    assert Config().replace(gain=1.1).hash() == "2eaf71c51a05"
    config = Config().replace(gain="1.1 3=2.8")
    assert Config.from_record(config.record()) == config and config.hash() != Config().hash()


def test_a_report_compares_them_with_plain_numbers(tmp_path, capsys):
    for words in (["1.1"], ["1.1", "1=2.0"], ["1=2.0"]):
        assert main(["--epochs", "1", "--widths", "8", "--seeds", "2", "--controls", "none", "--workers", "1", "--threads", "1",
                     "--out", str(tmp_path), "--gain", *words], MODELS) == 0
    assert main(["report", str(tmp_path)], MODELS) == 0 and f"{sqrt(2)!r} 1=2.0" in capsys.readouterr().out

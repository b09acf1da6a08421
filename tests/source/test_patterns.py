"""Patterns of names: of whole names, of parameters or of the modules that they are in; what is of nothing is refused."""

import pytest

from popup import UsageError
from popup.source.patterns import any_matched, by_name, matched, matches

NAMES = ["embed.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "blocks.0.mlp.0.weight",
         "blocks.10.attn.qkv.weight", "head.weight"]


@pytest.mark.parametrize(("pattern", "places"), [
    ("head.weight", [5]), ("head", [5]), ("*", [0, 1, 2, 3, 4, 5]), ("blocks.0", [1, 2, 3]), ("blocks.1*", [4]),
    ("*.attn.*", [1, 2, 4]), ("*.attn", [1, 2, 4]), ("blocks.?.mlp", [3]), ("*.qkv.weight", [1, 4]), ("blocks.[1-9]*", [4]),
    ("blocks", [1, 2, 3, 4])])
def test_a_pattern_is_of_whole_names_of_parameters_and_of_modules(pattern, places):
    assert matched(pattern, NAMES) == [NAMES[place] for place in places]


@pytest.mark.parametrize("pattern", ["attn", "weight", "HEAD", "blocks.0.", "", "blocks.0.attn.q"])
def test_a_part_of_a_name_is_none(pattern):
    assert not any(matches(pattern, name) for name in NAMES)


def test_a_pattern_of_nothing_is_refused_with_the_layers_and_the_nearest():
    with pytest.raises(UsageError, match=r"'attn.\*' is of no layer: did you mean '\*.attn.\*'\? there are embed.weight, blocks"):
        matched("attn.*", NAMES)
    with pytest.raises(UsageError, match=r"'nothing' is of no module: there are l0, .*l7, and 4 more$"):
        any_matched(["l1*", "nothing"], [f"l{place}" for place in range(12)], "module")


def test_several_patterns_add_up():
    assert any_matched(["head", "*.mlp"], NAMES) == {"head.weight", "blocks.0.mlp.0.weight"} and any_matched([], NAMES) == set()


def test_values_by_name_do_not_depend_on_the_order():
    values = {"*.attn": 2.8, "head": 1.0, "*.qkv.bias": 2.8}
    assert by_name(values, NAMES) == {NAMES[1]: 2.8, NAMES[2]: 2.8, NAMES[4]: 2.8, NAMES[5]: 1.0}
    assert by_name(dict(reversed(values.items())), NAMES) == by_name(values, NAMES)
    with pytest.raises(UsageError, match=r"'head.weight' has the value 2.8 by the pattern '\*' and 1.0 by 'head'"):
        by_name({"*": 2.8, "head": 1.0}, NAMES)

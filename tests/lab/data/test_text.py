"""Texts as windows of bytes: what is a label, where the split lies, what is held out, and what is refused in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from popup import UsageError
from popup.lab.data.datasets import DataRequest, load_dataset, settled_name
from popup.lab.data.validation import hold_out

LETTERS = "".join(chr(97 + place % 26) for place in range(2001))


def load(name, side=0):
    return load_dataset(name, DataRequest(Path(), side=side))


def written(tmp_path, content):
    path = tmp_path / "a text.txt"
    path.write_bytes(content)
    return f"text:{path}"


def test_each_label_is_the_byte_that_comes_next_and_the_last_tenth_is_test_data(tmp_path):
    data = load(written(tmp_path, LETTERS.encode()), side=10)
    (train, following), (test, ends) = data.train, data.test
    assert (data.title, data.classes, data.image) == ("a text.txt", 256, (10,))
    assert train.shape == following.shape == (180, 10) and test.shape == ends.shape == (20, 10) and train.dtype == torch.int64
    assert bytes(torch.cat([train.flatten(), test.flatten()]).tolist()).decode() == LETTERS[:2000]
    assert bytes(torch.cat([following.flatten(), ends.flatten()]).tolist()).decode() == LETTERS[1:]


def test_the_embedded_text_is_english_of_some_size_in_windows_of_64():
    data = load("text:")
    text = bytes(data.train[0].flatten().tolist()).decode(errors="replace")
    assert text.count(" the ") > 1000 and data.image == (64,) and len(data.train[0]) > 3000
    assert data.fingerprint and data.fingerprint != load("text:", side=128).fingerprint
    assert len(data.train[0]) == pytest.approx(9 * len(data.test[0]), abs=9)


def test_another_text_has_another_fingerprint(tmp_path):
    first = load(written(tmp_path, LETTERS.encode())).fingerprint
    assert load(written(tmp_path, LETTERS.replace("z", "y").encode())).fingerprint != first


def test_what_is_held_out_is_the_end_of_the_training_text_and_the_test_data_are_not_used(tmp_path):
    data = load(written(tmp_path, LETTERS.encode()), side=10)
    held = hold_out(data, 0.25)
    assert held.evaluated_on == "validation"
    for place in (0, 1):
        assert torch.equal(torch.cat([held.train[place], held.test[place]]), data.train[place])
    assert len(held.test[0]) == 45
    with pytest.raises(UsageError, match="holds out none; raise it"):
        hold_out(replace(data, train=(data.train[0][:1], data.train[1][:1])), 0.5)


@pytest.mark.parametrize(("content", "words"), [
    (b"\xff\xfe\x41", r"is no UTF-8 text \(byte 0 is 0xff\): convert it"), (b"", r"has 0 bytes, which are 0 windows of 64"),
    (b"too short", r"has 9 bytes, .*give a text of 641 bytes or more")])
def test_what_is_no_text_is_told_in_one_line(tmp_path, content, words):
    with pytest.raises(UsageError, match=words) as refused:
        load(written(tmp_path, content))
    assert "\n" not in str(refused.value)


def test_a_text_that_is_not_there_and_one_too_large_are_told(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"cannot read the text .*No such file.*text: alone"):
        load(f"text:{tmp_path / 'none'}")
    with pytest.raises(UsageError, match="cannot read the text"):
        load(f"text:{tmp_path}")
    monkeypatch.setattr("popup.lab.data.text.LARGEST_TEXT", 2000)
    with pytest.raises(UsageError, match="has 2,001 bytes: give at most 2,000"):
        load(written(tmp_path, LETTERS.encode()))


def test_a_relative_path_is_settled_where_it_is_written_and_the_embedded_text_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settled_name("text:a.txt") == f"text:{tmp_path / 'a.txt'}" and settled_name("text:") == "text:"

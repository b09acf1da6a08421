"""The ticket's file: what lies in it, and that a damaged or foreign one is refused with one line and nothing else."""

import json
import os
import pickle
import struct
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import models
from popup import TicketError, attach, extract, load
from popup.errors import UsageError
from popup.files import remove_parts, write_atomically
from popup.search.network import search_of
from popup.source.layers import MOST_LAYERS
from popup.ticket import file


def build():
    return models.resnet18((1, 8, 8), 3, (4, 4, 4, 4))


@pytest.fixture(scope="module")
def net():
    net = attach(build(), er_p=0.3, k=0.5, seed=3)
    net(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return net


@pytest.fixture(scope="module")
def content(net, tmp_path_factory):
    return extract(net, {"accuracy": 12.5}).save(tmp_path_factory.mktemp("ticket") / "t").read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ticket.safetensors"


def header(content):
    """The JSON header of a safetensors file and where the tensors' bytes begin."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + size]), 8 + size


def rewrite(content, change, forged=True):
    """The file again after `change(metadata, tensors)`, with a digest to match if `forged`."""
    metadata = json.loads(header(content)[0]["__metadata__"]["popup"])
    tensors, old = safetensors.torch.load(content), metadata.pop("digest")
    change(metadata, tensors)
    new = file.digest(metadata, tensors) if forged else old
    return safetensors.torch.save(tensors, {"popup": json.dumps({**metadata, "digest": new})})


def refuse(path, content):
    """Loading, or at the latest using, the file raises a TicketError of one line that names the file or a layer."""
    path.write_bytes(content)
    with pytest.raises(TicketError) as error:
        load(path).state_dict()
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_the_masks_can_be_read_as_the_head_of_the_module_says(net, content):
    """Without popup: header length, JSON, and from each mask one bit an edge, the lowest bit of a byte first."""
    described, start = header(content)
    metadata = json.loads(described["__metadata__"]["popup"])
    assert list(described["__metadata__"]) == ["popup"] and metadata["format"] == 1
    for record, layer, mask in zip(metadata["layers"], search_of(net).layers, search_of(net).select(), strict=True):
        first, last = described[f"mask/{record['name']}"]["data_offsets"]
        packed = content[start + first:start + last]
        bits = [packed[place // 8] >> place % 8 & 1 for place in range(record["edges"])]
        assert bits == mask.int().tolist() and sum(bits) == record["kept"]
        assert len(packed) == (record["edges"] + 7) // 8 and int.from_bytes(packed, "little") >> record["edges"] == 0
        assert record["shape"] == list(layer.spec.shape) and record["p_l"] == layer.p_l


def test_reading_and_writing_again_changes_nothing(content, path):
    path.write_bytes(content)
    assert load(path).save(path).read_bytes() == content


def test_rewriting_alone_is_not_what_is_refused(content, path):
    path.write_bytes(rewrite(content, lambda metadata, tensors: None))
    assert load(path).about == {"accuracy": 12.5}


def test_every_truncation_is_refused(content, path):
    _, start = header(content)
    for length in [*range(0, 24), start - 1, start, start + 1, *range(24, len(content), 997), len(content) - 1]:
        refuse(path, content[:length])


def test_every_flipped_bit_of_a_mask_is_refused(content, path):
    described, start = header(content)
    spans = [record["data_offsets"] for name, record in described.items() if name.startswith("mask/")]
    places = [start + place for first, last in spans for place in range(first, last)]
    for place in places[::7] + places[-1:]:
        refuse(path, content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1:])


FOREIGN = {
    "empty": b"", "text": b"not a ticket at all\n" * 9, "pickle": pickle.dumps({"format": 1}),
    "a json of lists": struct.pack("<Q", 2) + b"[]", "a huge header": struct.pack("<Q", 2**63) + b"{}",
    "tensors alone": safetensors.torch.save({"a": torch.zeros(2)}),
    "another's metadata": safetensors.torch.save({"a": torch.zeros(2)}, {"popup": "no json"}),
    "metadata of a list": safetensors.torch.save({"a": torch.zeros(2)}, {"popup": "[1]"}),
    "metadata of a number": safetensors.torch.save({"a": torch.zeros(2)}, {"popup": "1"}),
    "metadata of nothing else": safetensors.torch.save({"a": torch.zeros(2)}, {"popup": '{"format": 1}'}),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_refused(case, path):
    refuse(path, FOREIGN[case])


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_its_place_is_never_run(path, tmp_path):
    for number, write in enumerate((pickle.dump, torch.save)):
        trace = tmp_path / f"trace{number}"
        with open(path, "wb") as handle:
            write(Bomb(trace), handle)
        refuse(path, path.read_bytes())
        assert not trace.exists()


@pytest.mark.parametrize("number", [0, 3, "1", None, 99])
def test_another_format_number_is_named(content, path, number):
    path.write_bytes(rewrite(content, lambda metadata, tensors: metadata.update(format=number)))
    with pytest.raises(TicketError, match=f"has format {number!r}; this popup reads format 1 and 2"):
        load(path)


def first(metadata):
    return metadata["layers"][0]


CHANGES = {
    "no recipe": lambda m, t: m.pop("recipe"), "no settings": lambda m, t: m.pop("settings"),
    "no layers": lambda m, t: m.pop("layers"), "no constants": lambda m, t: m.pop("constants"),
    "no about": lambda m, t: m.pop("about"), "layers of numbers": lambda m, t: m.update(layers=[1, 2]),
    "an unknown field": lambda m, t: m["recipe"].update(unknown=1), "another seed": lambda m, t: m["recipe"].update(seed=4),
    "k above 1": lambda m, t: m["recipe"].update(k=2), "k as text": lambda m, t: m["recipe"].update(k="a"),
    "another k": lambda m, t: m["recipe"].update(k=0.25), "another gain": lambda m, t: m["recipe"].update(gain=1.0),
    "a method of the future": lambda m, t: m["settings"].update(method="magic"),
    "another name": lambda m, t: first(m).update(name="x.weight"), "another p_l": lambda m, t: first(m).update(p_l=0.31),
    "another shape": lambda m, t: first(m).update(shape=[4, 1, 3, 4]), "an edge more": lambda m, t:
    first(m).update(edges=first(m)["edges"] + 1), "an edge less": lambda m, t: first(m).update(edges=first(m)["edges"] - 1),
    "edges as text": lambda m, t: first(m).update(edges="a"), "negative edges": lambda m, t: first(m).update(edges=-8),
    "no mask hash": lambda m, t: first(m).pop("mask_hash"), "no edges hash": lambda m, t: first(m).pop("edges_hash"),
    "no mask": lambda m, t: t.pop("mask/0.weight"), "a mask too many": lambda m, t: t.update({"mask/x": torch.zeros(1)}),
    "an unknown room": lambda m, t: t.update({"elsewhere/x": torch.zeros(1)}),
    "a mask of floats": lambda m, t: t.update({"mask/0.weight": t["mask/0.weight"].float()}),
    "a mask of two dimensions": lambda m, t: t.update({"mask/3.conv1.weight": t["mask/3.conv1.weight"][None]}),
    "a mask of another layer": lambda m, t: t.update({"mask/0.weight": t["mask/3.conv1.weight"].clone()}),
    "padding bits": lambda m, t: pad(m, t),
}


def pad(metadata, tensors):
    """Set the bits after the last edge, with a hash to match: a mask of other bytes that means the same."""
    name = next(r["name"] for r in metadata["layers"] if r["edges"] % 8)
    record = next(record for record in metadata["layers"] if record["name"] == name)
    mask = tensors[f"mask/{name}"].numpy()
    mask[-1] |= np.uint8(256 - (1 << record["edges"] % 8))


VARIANCE = "statistics/1.running_var"
HONEST_LOOKING = {
    "the accuracy": lambda m, t: m["about"].update(accuracy=99.5), "the kept count": lambda m, t: first(m).update(kept=1),
    "a constant": lambda m, t: m["constants"].update({"13.bias": [1.0, [3]]}),
    "a statistic": lambda m, t: t[VARIANCE].view(-1)[0].mul_(2),
    "a statistic's dtype": lambda m, t: t.update({VARIANCE: t[VARIANCE].view(torch.int32)}),
    "a statistic's shape": lambda m, t: t.update({VARIANCE: t[VARIANCE].view(2, 2)}),
}


@pytest.mark.parametrize("case", HONEST_LOOKING)
def test_changes_that_nothing_else_would_notice_are_refused_by_the_digest(case, content, path):
    path.write_bytes(rewrite(content, HONEST_LOOKING[case], forged=False))
    with pytest.raises(TicketError, match="is damaged: its contents are not what was saved"):
        load(path)


def with_header(content, change):
    """The file with change(its header's text) in place of that."""
    described, start = header(content)
    text = change(json.dumps(described)).encode()
    return struct.pack("<Q", len(text)) + text + content[start:]


TWICE = {
    "an entry beside popup's": lambda text: text.replace('"__metadata__": {', '"__metadata__": {"format": "pt", ', 1),
    "a tensor": lambda text: text[:-1] + f', "{VARIANCE}": {json.dumps(json.loads(text)[VARIANCE])}' + "}",
    "the metadata": lambda text: text[:-1] + f', "__metadata__": {json.dumps(json.loads(text)["__metadata__"])}' + "}",
    "a field within": lambda text: text.replace('{\\"about\\": ', '{\\"about\\": {\\"accuracy\\": 99}, \\"about\\": ', 1),
}


@pytest.mark.parametrize("case", TWICE)
def test_what_would_be_passed_over_is_refused(case, content, path):
    whole, changed = with_header(content, str), with_header(content, TWICE[case])
    assert load_bytes(path, whole).about == {"accuracy": 12.5} and changed != whole
    path.write_bytes(changed)
    with pytest.raises(TicketError, match=r"and not just 'popup'|a key stands twice"):
        load(path)


def test_a_flipped_bit_anywhere_is_refused_or_means_the_same(content, path):
    whole = load_bytes(path, content).state_dict()
    for place in range(0, len(content), 61):
        flipped = content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1:]
        try:
            state = load_bytes(path, flipped).state_dict()
        except TicketError:
            continue
        assert state.keys() == whole.keys() and all(torch.equal(tensor, whole[name]) for name, tensor in state.items())


def load_bytes(path, content):
    path.write_bytes(content)
    return load(path)


@pytest.mark.parametrize("about", [{1: "a", 10: "b", 2: "c"}, {"pair": (1, 2)}, {"nan": float("nan")}, {"ü": 1e-300}])
def test_what_is_recorded_about_it_need_not_be_json_already(net, path, about):
    assert json.dumps(load(extract(net, about).save(path)).about) == json.dumps(json.loads(json.dumps(about)))


@pytest.mark.parametrize("case", CHANGES)
def test_changed_contents_are_refused(case, content, path):
    refuse(path, rewrite(content, CHANGES[case]))


def test_what_the_system_refuses_is_an_os_error(content, tmp_path, net):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    with pytest.raises(TicketError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(OSError):
        extract(net).save(tmp_path / "no such directory" / "t")


def test_a_failing_write_leaves_the_old_file_and_nothing_else(content, net, path, monkeypatch):
    path.write_bytes(content)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        extract(net).save(path)
    assert path.read_bytes() == content and os.listdir(path.parent) == [path.name]


def test_no_more_layers_are_read_than_can_be_attached(path, forge, monkeypatch):
    extract(attach(nn.Sequential(nn.Linear(4, 2)), er_p=1.0, k=0.5)).save(path)
    forge(path, lambda metadata, tensors: metadata.update(layers=metadata["layers"] * (MOST_LAYERS + 1)))
    with pytest.raises(TicketError, match="it says 10,001 layers, and a network may have 10,000"):
        load(path)
    monkeypatch.setitem(attach.__globals__, "MOST_LAYERS", 2)
    with pytest.raises(UsageError, match="has 3 layers, of which a ticket can hold 2: leave some out by skip"):
        attach(nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)]), er_p=1.0, k=0.5)


NAMES = {"240 bytes": "x" * 240, "241 bytes": "x" * 241, "255 bytes": "x" * 255, "letters of 2": "é" * 127,
         "and one of 1": "x" + "é" * 127, "letters of 3": "日" * 85, "letters of 4": "xx" + "𝄞" * 63,
         "no text": "b\udcff" + "é" * 126}


@pytest.mark.parametrize("letters", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("durable", [True, False])
def test_a_name_that_the_system_takes_can_be_written(letters, durable, net, content, tmp_path):
    """The temporary file's name is no longer than that, though 15 letters come to it, and ends at a whole letter."""
    place, seen = tmp_path / letters, []
    place.touch()  # the system takes it
    extract(net, {"accuracy": 12.5}).save(place)
    assert place.read_bytes() == content and os.listdir(tmp_path) == [letters]
    with pytest.raises(OSError, match="name too long"):
        write_atomically(tmp_path / (letters + "x" * 256), b"")
    with mock.patch("os.replace", lambda part, path: seen.append(part)):
        for _ in range(2):
            write_atomically(place, b"new", durable)
    assert len(set(seen)) == 2 and all(os.path.dirname(part) == str(tmp_path) for part in seen)
    assert all(os.path.basename(part).startswith(f".{letters[:20]}") and part.endswith(".part") for part in seen)
    remove_parts(tmp_path)
    assert os.listdir(tmp_path) == [letters] and place.read_bytes() == content

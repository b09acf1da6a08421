"""Read thousands of damaged and forged tickets and checkpoints in a process whose memory is bounded.

    python tests/ticket/mutate.py COUNT

Prints one JSON line: how many were read, how many were refused with one line, how many gave exactly what was written.
Anything else (another network, a traceback, more than 512 MiB of further memory) ends it with an error.
"""

import json
import pickle
import random
import resource
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import safetensors.torch
import torch

import models
from popup import SearchSettings, TicketError, advance, attach, extract, load, scores
from popup.lab.config import Config
from popup.lab.precision import Precision
from popup.lab.training.checkpoint import CheckpointError, Checkpoints
from popup.lab.training.churn import Churn
from popup.lab.training.state import TrainingState
from popup.source.layers import find_layers
from popup.ticket.hashes import frozen_hashes
from popup.ticket.sealed import digest

ROOM = 512 << 20  # bytes of memory that a file may take beyond what the process has
FORGED = {"recipe", "layers", "book"}  # what must hold together, whoever computes the digest
WEIRD = [0, 1, -1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, True, None, "", "x", "exact", "given", [], [1, 2],
         [10**9, 10**9], {}]


class Trap:
    """Ends the process with a traceback when it is unpickled."""

    def __reduce__(self):
        return eval, ("1 / 0",)


def header_of(content):
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + size]), 8 + size


def with_header(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def flip(content, chance):
    """Between one and eight bits."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content, chance):
    """Shorter, longer, or a piece cut out of the middle."""
    place = chance.randrange(len(content))
    return chance.choice([content[:place], content + content[:place + 1], content[:place // 2] + content[place:],
                          bytes(place) + content[place:]])


def swap(content, chance):
    """Two tensors exchange their names."""
    header, start = header_of(content)
    one, other = chance.sample([name for name in header if name != "__metadata__"], 2)
    header[one], header[other] = header[other], header[one]
    return with_header(header, content[start:])


def oversize(content, chance):
    """A tensor of another shape, dtype or place."""
    header, start = header_of(content)
    entry = header[chance.choice([name for name in header if name != "__metadata__"])]
    key = chance.choice(["shape", "dtype", "data_offsets"])
    entry[key] = {"shape": lambda: [chance.choice([0, -1, 2**20, 2**40, 2**63])] * chance.randint(1, 4),
                  "dtype": lambda: chance.choice(["F64", "U8", "BF16", "F8_E4M3", "I64", "BOOL", "X"]),
                  "data_offsets": lambda: sorted(chance.choices([0, 8, 2**40, 2**63, len(content)], k=2))}[key]()
    return with_header(header, content[start:])


def replace(content, chance):
    """Another file in its place."""
    return chance.choice([b"", b"\0" * 100, pickle.dumps(Trap()), chance.randbytes(chance.randrange(1, 4096)),
                          b"[" * 100000, struct.pack("<Q", 90000) + b"[" * 90000, struct.pack("<Q", 2**60) + content[8:],
                          safetensors.torch.save({"a": torch.zeros(3)},
                                                 {"popup": chance.choice(["[1]", "[" * 9999, "{}", "1e999"])})])


def metadata(content, chance, forged=False):
    """Some value within the metadata becomes another; with a new digest if `forged`."""
    header, start = header_of(content)
    record = json.loads(header["__metadata__"]["popup"])
    parts = {key: record[key] for key in sorted(FORGED & record.keys() if forged else record)} if "recipe" in record else record
    change(parts, chance)
    record |= parts
    if forged:
        record.pop("digest", None)
        record["digest"] = digest(record, safetensors.torch.load(content))
    header["__metadata__"]["popup"] = json.dumps(record, sort_keys=True)
    return with_header(header, content[start:])


def change(value, chance):
    """Replace, add or remove one item at a random depth."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = chance.choice(keys)
    if isinstance(value[key], (dict, list)) and value[key] and chance.random() < 0.9:
        change(value[key], chance)
    elif isinstance(value, dict) and chance.random() < 0.1:
        value.pop(key)
    elif isinstance(value[key], (int, float)) and chance.random() < 0.6:
        value[key] = type(value[key])(value[key] * chance.choice([-1, 0.5, 2, 3, 1000]) + chance.choice([0, 1, -1]))
    else:
        value[key] = chance.choice(WEIRD)


def forge(content, chance):
    return metadata(content, chance, forged=True)


def refused(error, kind):
    """Whether the error is popup's own, of one line."""
    assert isinstance(error, kind) and isinstance(error, ValueError), repr(error)
    assert "\n" not in str(error) and len(str(error)) < 2000, error
    return True


def same_state(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype is other[name].dtype and torch.equal(one[name], other[name]) for name in one)


def network():
    return models.resnet18((1, 8, 8), 3, (4, 4, 6, 6))


def tickets(directory):
    """Readers of eight kinds of ticket: plain, coded for a small k, with a given mask and biases, with given weights, signed (of
    format 2), with redraws, and of a k so large that all codes are in one array, compressed and not."""
    drawn = {"er_p": 0.4, "density": "erk", "weights": "kaiming_normal"}
    own = {"mask": "given", "bias": "search", "masks": {layer.name: torch.rand(layer.shape) < 0.4
                                                        for layer in find_layers(network(), biases=True)}}
    redrawn = SearchSettings("iterand", redraw_every=1, redraw_rate=0.9)
    for place, (k, source, options) in enumerate([(0.5, drawn, {}), (0.05, drawn, {"compress": True}), (0.4, own, {}),
                                                  (0.3, drawn | {"weights": "given"}, {"embed_weights": True}),
                                                  (0.3, drawn | {"method": "signed"}, {}),
                                                  (0.5, drawn | {"search": redrawn}, {"compress": True}),
                                                  (0.8, drawn | {"method": "signed"}, {}),
                                                  (0.9, drawn | {"method": "signed"}, {"compress": True})]):
        net = attach(network(), k=k, seed=place, **source)
        net(torch.randn(8, 1, 8, 8))
        advance(net, 0.1)
        for score in scores(net):
            score.data = score.data.flip(0)  # so that what was drawn anew is selected
        path = extract(net, {"task": {"model": "resnet18"}, "test_accuracy": 12.5}).save(directory / "ticket", **options)
        content, state = path.read_bytes(), load(path).state_dict()

        def read(changed, forged, path=path, content=content, state=state, options=options):
            path.write_bytes(changed)
            try:
                found = load(path)
                assert same_state(found.state_dict(), state), "another network was loaded silently"
                assert forged or found.save(path, **options).read_bytes() == content, "another ticket was loaded silently"
            except TicketError as error:
                return refused(error, TicketError)
            return False

        yield content, read, [flip, cut, swap, oversize, replace, metadata, forge]


def checkpoint(directory):
    """A reader of checkpoints: the state stays as it was, or becomes just the one that was written."""
    net = attach(models.mlp((1, 8, 8), 4, (16,)), er_p=0.4, seed=1)
    optimizer = torch.optim.SGD(scores(net), lr=0.1, momentum=0.9)
    state = TrainingState(net, scores(net), optimizer, 7, Precision.of(net, "fp32"), Churn(net), frozen_hashes(net))
    path, config = directory / "checkpoint", Config()
    before = json.dumps(state.record()), state.tensors()
    net(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    state.step = 1
    state.finish_epoch({"epoch": 1, "test_loss": 0.1})
    Checkpoints(path).of(config).write(state)
    content, after = path.read_bytes(), (json.dumps(state.record()), state.tensors())

    def read(changed, forged):
        path.write_bytes(changed)
        optimizer.state.clear()
        was = json.dumps(state.record()), state.tensors()
        try:
            Checkpoints(path).of(config).resume(state)
        except CheckpointError as error:
            now = json.dumps(state.record()), state.tensors()
            assert was[0] == now[0] and same_state(was[1], now[1]), "a refused checkpoint changed the state"
            return refused(error, CheckpointError)
        assert json.dumps(state.record()) == after[0] and same_state(state.tensors(), after[1]), "another state was loaded"
        return False

    assert before[0] != after[0]
    return content, read, [flip, cut, swap, oversize, replace, metadata]


def main(count):
    torch.set_num_threads(1)
    chance, numbers = random.Random(0), {"read": 0, "refused": 0, "same": 0}
    with tempfile.TemporaryDirectory() as name:
        readers = [*tickets(Path(name)), checkpoint(Path(name))]
        for content, read, _ in readers:
            assert not read(content, False)  # what was not changed is not refused
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM,) * 2)
        while numbers["read"] < count:
            content, read, kinds = readers[numbers["read"] % len(readers)]
            kind = chance.choice(kinds)
            numbers["refused" if read(kind(content, chance), kind is forge) else "same"] += 1
            numbers["read"] += 1
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Images streamed from their files: the pixels, order, statistics, tickets and errors of the decoded data set."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.data.dataset import DataRequest
from popup.lab.data.datasets import load_dataset
from popup.lab.data.streamed import Streamed, channel_sums, first_images, in_parts
from popup.lab.data.validation import hold_out
from popup.lab.machine import Machine
from popup.lab.runs.flow import run
from popup.lab.runs.laboratory import Laboratory
from popup.lab.training.attachment import computed_edges
from popup.lab.training.batches import Batches, Normalise
from popup.lab.training.ranks import Ranks
from popup.lab.training.stop import Stopped


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of PNG images of different sizes: 20 and 5 of each."""
    root, random = tmp_path_factory.mktemp("streamed") / "pictures", np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 5)):
        for low, name in ((0, "dark"), (60, "bright")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(low, low + 160, (12 + number % 3, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def load(images, streaming, decoders=1, memory=1e9):
    return load_dataset(f"folder:{images}", DataRequest(images.parent / "data", side=8, streaming=streaming, memory=memory,
                                                        decoders=decoders))


def all_of(data, **options):
    batches = Batches(*data.train, 8, ("crop", "flip", "resized_crop", "cutout"), 3, **options)
    return [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]


def test_streamed_images_are_the_decoded_ones(images):
    decoded, streamed = load(images, "never"), load(images, "always")
    assert isinstance(streamed.train[0], Streamed) and isinstance(decoded.train[0], torch.Tensor)
    assert streamed.fingerprint == decoded.fingerprint and streamed.image == decoded.image
    for ours, theirs in ((streamed.train, decoded.train), (streamed.test, decoded.test)):
        assert torch.equal(first_images(ours[0], 100), theirs[0]) and torch.equal(ours[1], theirs[1])
        assert channel_sums(ours[0]) == channel_sums(theirs[0])
        assert ours[0].nbytes == theirs[0].nbytes and ours[0].shape == tuple(theirs[0].shape)
    assert Normalise(streamed.train[0]).record() == Normalise(decoded.train[0]).record()
    held, other = hold_out(streamed, 0.2), hold_out(decoded, 0.2)
    assert torch.equal(first_images(held.test[0], 100), other.test[0])
    assert channel_sums(held.train[0]) == channel_sums(other.train[0]) != channel_sums(decoded.train[0])


@pytest.mark.parametrize("mask", ["snip", "synflow"])
def test_a_pruning_criterion_finds_the_same_edges(mask, images):
    config = Config().replace(mask=mask, er_p=0.1, weights="kaiming_normal")
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2)]
    found = [computed_edges(net, config, load(images, streaming).train)
             for net, streaming in zip(nets, ("never", "always"), strict=True)]
    assert found[0].keys() == found[1].keys() and all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert sum(map(len, found[0].values())) == 155


@pytest.mark.parametrize("decoders", [1, 3])
def test_order_and_augmentation_do_not_depend_on_the_processes_that_decode(images, decoders):
    wanted, found = all_of(load(images, "never")), all_of(load(images, "always", decoders))
    assert len(wanted) == len(found) == 10
    for (inputs, labels), (other, others) in zip(wanted, found, strict=True):
        assert torch.equal(inputs, other) and torch.equal(labels, others)


def test_an_epoch_goes_on_in_the_middle_and_ranks_share_each_batch(images):
    data = load(images, "always", 2)
    whole = list(Batches(*data.train, 8, ("crop",), 3).epoch(1))
    rest = list(Batches(*data.train, 8, ("crop",), 3).epoch(1, 3))
    assert len(rest) == 2 and all(torch.equal(one[0], other[0]) for one, other in zip(whole[3:], rest, strict=True))
    assert list(Batches(*data.train, 8, (), 3).epoch(1, 5)) == []
    parts = [list(Batches(*data.train, 8, ("crop",), 3, Ranks(rank, 2)).epoch(1)) for rank in (0, 1)]
    for (inputs, labels), one, other in zip(whole, *parts, strict=True):
        assert torch.equal(inputs, torch.cat([one[0], other[0]])) and torch.equal(labels, torch.cat([one[1], other[1]]))


def test_auto_streams_what_is_larger_than_its_memory(images):
    size = 50 * 3 * 8 * 8
    assert isinstance(load(images, "auto", memory=size).train[0], torch.Tensor)
    assert isinstance(load(images, "auto", memory=size - 1).train[0], Streamed)


def test_the_second_start_measures_nothing(images, monkeypatch):
    load(images, "always")
    monkeypatch.setattr("popup.lab.data.folder._measure", lambda *_: pytest.fail("measured twice"))
    load(images, "always")


def test_reading_draws_nothing_from_torchs_generator(images):
    data = load(images, "always", 2)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    list(in_parts(data.train[0], [slice(0, 8)]))
    assert torch.equal(torch.rand(3), expected)


def test_a_file_that_is_no_image_any_more_is_one_line(tmp_path, images):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")
    data = load_dataset(f"folder:{tmp_path}", DataRequest(tmp_path / "data", streaming="always", decoders=2))
    (tmp_path / "train" / "b" / "0.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"b/0\.png is not an image that can be read") as error:
        list(Batches(*data.train, 2, (), 0).epoch(0))
    assert "\n" not in str(error.value)
    Image.new("RGB", (9, 8)).save(tmp_path / "train" / "b" / "0.png")
    with pytest.raises(UsageError, match=r"is 9x8 pixels and the first is 8x8 pixels: give --image-size"):
        list(Batches(*data.train, 2, (), 0).epoch(0))


def test_decoders_that_die_are_one_line(images, monkeypatch):
    def die(*arguments):
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    monkeypatch.setattr("popup.lab.data.streamed.DataLoader.__iter__", die)
    with pytest.raises(OSError, match=r"a process that decodes images has died, .*: give fewer --decoders"):
        first_images(load(images, "always").train[0], 4)


def test_a_streamed_run_stopped_in_an_epoch_leaves_the_ticket_of_the_decoded_one(images, tmp_path, stop_at):
    def small(image, classes):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
                             nn.Linear(144, classes))

    config = Config.from_flat({"dataset": f"folder:{images}", "image_size": 8, "model": "small", "epochs": 2,
                               "batch_size": 8, "augment": ("flip",)})

    def found(out, streaming, decoders=1, stop=None):
        machine = Machine("cpu", data_dir=str(images.parent / "data"), streaming=streaming, decoders=decoders)
        return run(Laboratory({"small": small}, machine, tmp_path / out, stop), config)

    whole = found("decoded", "never")
    with pytest.raises(Stopped):
        found("streamed", "always", 2, stop_at(8))
    again = found("streamed", "always", 1)
    tickets = [(tmp_path / out / config.hash() / "ticket.safetensors").read_bytes() for out in ("decoded", "streamed")]
    assert tickets[0] == tickets[1] and again["data_fingerprint"] == whole["data_fingerprint"]
    assert json.dumps(again["layers"]) == json.dumps(whole["layers"]) and again["test_loss"] == whole["test_loss"]

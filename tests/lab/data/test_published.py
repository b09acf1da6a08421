"""Published data sets: small files of the real format, written here, go through torchvision's own readers.

Where a reader checks a published MD5 the test puts in that of its own file; the reader itself is never replaced.
"""

import hashlib
import io
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets

from popup.errors import UsageError
from popup.lab.data.dataset import DataRequest
from popup.lab.data.datasets import DATASETS, load_dataset
from popup.lab.data.published import IDX, PUBLISHED

COUNTS = {"train": 10, "test": 4}


def pixels(shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(root, reader):
    """MNIST's files: big-endian magic number and sizes, then bytes."""
    folder = root / reader / "raw"
    folder.mkdir(parents=True)
    expected = []
    for (images_name, labels_name), count in zip((IDX[:2], IDX[2:]), COUNTS.values(), strict=True):
        images, labels = pixels((count, 28, 28), count), np.arange(count, dtype=np.uint8) % 10
        (folder / images_name).write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes())
        (folder / labels_name).write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
        expected += [images[:, None], labels]
    return expected


def write_cifar(root, folder, key, batches, meta, monkeypatch, reader):
    """CIFAR's pickles: a dictionary with rows of 3072 bytes, red first, and a list of labels."""
    (root / folder).mkdir(parents=True)
    parts, sums = {}, {}
    for name, count in batches.items():
        images, labels = pixels((count, 3, 32, 32), len(parts)), [place % 10 for place in range(count)]
        sums[name] = write_pickle(root / folder / name, {"data": images.reshape(count, 3072), key: labels})
        parts[name] = images, np.array(labels)
    meta_sum = write_pickle(root / folder / meta["filename"], {meta["key"]: [str(label) for label in range(10)]})
    monkeypatch.setattr(reader, "train_list", [[name, sums[name]] for name in sums if "test" not in name])
    monkeypatch.setattr(reader, "test_list", [[name, sums[name]] for name in sums if "test" in name])
    monkeypatch.setattr(reader, "meta", {**meta, "md5": meta_sum})
    train = [part for name, part in parts.items() if "test" not in name]
    test = next(part for name, part in parts.items() if "test" in name)
    return [np.concatenate([part[0] for part in train]), np.concatenate([part[1] for part in train]), *test]


def write_pickle(path, content):
    """Returns the file's MD5."""
    path.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(root, monkeypatch):
    batches = {**{f"data_batch_{number}": 2 for number in range(1, 6)}, "test_batch": 4}
    return write_cifar(root, "cifar-10-batches-py", "labels", batches, {"filename": "batches.meta", "key": "label_names"},
                       monkeypatch, torchvision.datasets.CIFAR10)


def write_cifar100(root, monkeypatch):
    return write_cifar(root, "cifar-100-python", "fine_labels", {"train": 10, "test": 4},
                       {"filename": "meta", "key": "fine_label_names"}, monkeypatch, torchvision.datasets.CIFAR100)


def write_svhn(root, monkeypatch):
    """SVHN's MATLAB files: X [32, 32, 3, n], y [n, 1] with 10 for the digit 0."""
    root.mkdir(exist_ok=True)
    expected, splits = [], {}
    for split, count in COUNTS.items():
        images, labels = pixels((count, 3, 32, 32), count), np.arange(count) % 10
        content = io.BytesIO()
        written = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
        scipy.io.savemat(content, {"X": images.transpose(2, 3, 1, 0), "y": written})
        (root / f"{split}_32x32.mat").write_bytes(content.getvalue())
        splits[split] = ["", f"{split}_32x32.mat", hashlib.md5(content.getvalue()).hexdigest()]
        expected += [images, labels]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", splits)
    return expected


WRITERS = {
    "mnist": lambda root, monkeypatch: write_idx(root, "MNIST"),
    "fashion_mnist": lambda root, monkeypatch: write_idx(root, "FashionMNIST"),
    "kmnist": lambda root, monkeypatch: write_idx(root, "KMNIST"),
    "cifar10": write_cifar10, "cifar100": write_cifar100, "svhn": write_svhn}
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST", "cifar10": "CIFAR-10",
          "cifar100": "CIFAR-100", "svhn": "SVHN"}


def test_every_published_data_set_is_tested():
    assert set(WRITERS) == {published.name for published in PUBLISHED}
    assert set(WRITERS) == set(DATASETS) - {"digits", "imagenet", "tiny_imagenet"}


@pytest.mark.parametrize("name", WRITERS)
def test_the_files_pixels_and_labels_arrive(name, tmp_path, monkeypatch):
    expected = WRITERS[name](tmp_path, monkeypatch)
    data = load_dataset(name, DataRequest(tmp_path))
    for tensor, array in zip((*data.train, *data.test), expected, strict=True):
        assert torch.equal(tensor, torch.from_numpy(array.astype(tensor.numpy().dtype)))
    assert data.train[0].dtype is torch.uint8 and data.train[1].dtype is torch.int64
    assert (data.title, data.classes) == (TITLES[name], 100 if name == "cifar100" else 10)
    assert data.image == ((1, 28, 28) if "mnist" in name else (3, 32, 32))
    assert data.evaluated_on == "test" and len(data.fingerprint) == 64


@pytest.mark.parametrize("name", WRITERS)
def test_the_second_start_reads_the_cache_alone(name, tmp_path, monkeypatch):
    WRITERS[name](tmp_path, monkeypatch)
    first = load_dataset(name, DataRequest(tmp_path))
    for published in PUBLISHED:
        monkeypatch.delattr(torchvision.datasets, published.reader)
    second = load_dataset(name, DataRequest(tmp_path))
    assert all(map(torch.equal, (*first.train, *first.test), (*second.train, *second.test)))
    assert second.fingerprint == first.fingerprint


def test_other_files_are_decoded_anew(tmp_path):
    write_idx(tmp_path, "MNIST")
    first = load_dataset("mnist", DataRequest(tmp_path))
    path = tmp_path / "MNIST" / "raw" / IDX[0]
    content = bytearray(path.read_bytes())
    content[16] ^= 255
    path.write_bytes(content)
    second = load_dataset("mnist", DataRequest(tmp_path))
    assert int((first.train[0] != second.train[0]).sum()) == 1 and first.fingerprint != second.fingerprint


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_data_set_says_what_to_do_and_writes_nothing(name, tmp_path):
    with pytest.raises(UsageError, match=rf"'{name}' is not in .* is missing.*--download.*--data-dir") as error:
        load_dataset(name, DataRequest(tmp_path))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_one_missing_file_is_named(tmp_path):
    write_idx(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "raw" / IDX[3]).unlink()
    with pytest.raises(UsageError, match=rf"{IDX[3]} is missing; run once"):
        load_dataset("mnist", DataRequest(tmp_path))


def test_a_file_of_another_kind_is_told_with_a_reason(tmp_path):
    """torchvision's reader asserts without a word."""
    write_idx(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / IDX[0]
    path.write_bytes(struct.pack(">4I", 0x805, 10, 28, 28) + path.read_bytes()[16:])
    with pytest.raises(UsageError, match=r"cannot be read \(\w+: \w.*\): remove MNIST there and run once with") as error:
        load_dataset("mnist", DataRequest(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "file"), [("mnist", f"MNIST/raw/{IDX[0]}"), ("svhn", "test_32x32.mat"),
                                            ("cifar10", "cifar-10-batches-py/data_batch_3"),
                                            ("cifar100", "cifar-100-python/meta")])
def test_damaged_files_are_one_line_and_leave_no_cache(name, file, tmp_path, monkeypatch):
    WRITERS[name](tmp_path, monkeypatch)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match=rf"'{name}' .* cannot be read .*--download") as error:
        load_dataset(name, DataRequest(tmp_path))
    assert "\n" not in str(error.value)
    assert [entry.name for entry in (tmp_path / "decoded").iterdir()] == [".lock"]


def test_download_asks_torchvision_for_the_files(tmp_path, monkeypatch):
    asked = []

    def fetch(self):
        asked.append(self.train)
        if not (tmp_path / "MNIST").exists():
            write_idx(tmp_path, "MNIST")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fetch)
    data = load_dataset("mnist", DataRequest(tmp_path, download=True))
    assert asked and len(data.train[0]) == COUNTS["train"]
    asked.clear()
    load_dataset("mnist", DataRequest(tmp_path, download=True))
    assert not asked


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    def fetch(self):
        raise OSError("no network here")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fetch)
    with pytest.raises(UsageError, match=r"'mnist' .*cannot be downloaded .*no network here.*train-images.* yourself"):
        load_dataset("mnist", DataRequest(tmp_path, download=True))

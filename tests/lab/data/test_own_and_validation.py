"""A user's own tensors, the embedded digits, names of data sets, and the validation part of the training data."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from popup.errors import UsageError
from popup.lab.data.dataset import DataRequest, Dataset
from popup.lab.data.datasets import DATASETS, load_dataset
from popup.lab.data.digits import digits
from popup.lab.data.validation import hold_out

MODULE = """
import numpy as np
import torch
import popup.lab.data.datasets

def images(count):
    return np.arange(count * 12, dtype=np.uint8).reshape(count, 3, 2, 2)

def arrays():
    return (images(4), [0, 1, 2, 0]), (images(2), np.array([3, 1], dtype=np.int32))

def floats():
    return (torch.randn(4, 1, 2, 2, dtype=torch.float64), torch.arange(4)), (torch.randn(1, 1, 2, 2), torch.tensor([0]))

def ready():
    (train, labels), _ = floats()
    return popup.lab.data.datasets.Dataset("Mine", 7, (train, labels), (train, labels))

def with_numbers(train, test):
    splits = floats()
    for (images, _), number in zip(splits, (train, test)):
        images[-1, 0, 1, 1] = number
    return splits

def changed(fingerprint=""):
    (train, labels), test = arrays()
    train[0, 0, 0, 0] += 1
    as_tensors = [tuple(map(torch.as_tensor, part)) for part in ((train, labels), test)]
    return popup.lab.data.datasets.Dataset("Mine", 4, *as_tensors, fingerprint=fingerprint)

own_fingerprint = lambda: changed("mine")

nan_train = lambda: with_numbers(float("nan"), 1.0)
inf_test = lambda: with_numbers(1.0, float("inf"))
nan_ready = lambda: popup.lab.data.datasets.Dataset("Mine", 7, *with_numbers(1.0, float("nan")))

half_ready = lambda: popup.lab.data.datasets.Dataset("Mine", 7, floats()[0], floats()[1][:1])

number = 3
nothing = lambda: None
one_split = lambda: (images(4), [0, 1, 2, 0])
flat = lambda: ((images(4).reshape(48), [0, 1, 2, 0]),) * 2
integers = lambda: ((images(4).astype(int), [0, 1, 2, 0]),) * 2
short = lambda: ((images(4), [0, 1, 2]),) * 2
negative = lambda: ((images(4), [0, 1, 2, -1]),) * 2
soft = lambda: ((images(4), [0.0, 1.0, 2.0, 0.5]),) * 2
empty = lambda: ((images(0), []),) * 2
kinds = lambda: ((images(4), [0, 1, 2, 0]), (images(4).astype(np.float32), [0, 1, 2, 0]))
shapes = lambda: ((images(4), [0, 1, 2, 0]), (images(4)[:, :, :1], [0, 1, 2, 0]))
wide = lambda: popup.lab.data.datasets.Dataset("Mine", 4, *(tuple(map(torch.as_tensor, part)) for part in shapes()))
needy = lambda path: arrays()
short_words = lambda: ((images(4), np.array([0, 1, 2, 0], dtype=np.uint16)),) * 2
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "own_data"


def load(name):
    return load_dataset(name, DataRequest(directory=None))


def test_a_users_own_arrays_and_tensors(module):
    data = load(f"{module}:arrays")
    assert (data.title, data.classes, data.image) == ("own_data:arrays", 4, (3, 2, 2))
    assert data.train[0].dtype is torch.uint8 and data.train[0].flatten().tolist() == list(range(48))
    assert data.test[1].dtype is torch.int64 and data.test[1].tolist() == [3, 1]
    assert load(f"{module}:floats").train[0].dtype is torch.float32
    assert load(f"{module}:ready").title == "Mine"
    assert load(f"{module}:short_words").train[1].tolist() == [0, 1, 2, 0]


def test_a_dataset_without_a_fingerprint_gets_that_of_its_tensors(module):
    ready, changed, arrays = (load(f"{module}:{name}").fingerprint for name in ("ready", "changed", "arrays"))
    assert len(ready) == len(changed) == 64 and changed != arrays
    assert load(f"{module}:own_fingerprint").fingerprint == "mine"


@pytest.mark.parametrize("function", ["nothing", "one_split", "flat", "integers", "short", "negative", "soft", "empty",
                                      "number", "missing", "kinds", "shapes", "wide", "needy",
                                      "nan_train", "inf_test", "nan_ready", "half_ready"])
def test_what_is_no_data_is_one_line(module, function):
    with pytest.raises(UsageError, match=f"own_data:{function}") as error:
        load(f"{module}:{function}")
    assert "\n" not in str(error.value)


def test_images_that_are_not_finite_are_named(module):
    for name, words in (("nan_train", "training images of .* image 3,"), ("inf_test", "test images of .* image 0,")):
        with pytest.raises(UsageError, match=words):
            load(f"{module}:{name}")


@pytest.mark.parametrize(("name", "words"), [
    ("digit", "did you mean 'digits'"), ("cifar-10", "did you mean 'cifar10'.*folder:PATH"), ("", "digits"),
    ("nowhere.at_all:load", "MODULE:FUNCTION"), (":", "MODULE:FUNCTION"), ("folder:", "train/CLASS"),
    ("folder:/nowhere", "/nowhere")])
def test_unknown_names(name, words):
    with pytest.raises(UsageError, match=words) as error:
        load(name)
    assert "\n" not in str(error.value)


def test_image_size_is_refused_where_images_have_their_own():
    with pytest.raises(UsageError, match=r"image_size is 16 .*'digits'.*folder"):
        load_dataset("digits", DataRequest(directory=None, side=16))


def test_the_digits_are_those_that_scikit_learn_loads_wherever_it_keeps_them(monkeypatch):
    images, labels = load_digits(return_X_y=True)
    found = digits()
    pixels, targets = (torch.cat([found.train[part], found.test[part]]) for part in (0, 1))
    rows = [sorted(zip(map(bytes, values.reshape(len(values), -1)), marks.tolist(), strict=True))
            for values, marks in ((pixels.numpy(), targets), (images.astype(np.uint8), labels))]
    assert rows[0] == rows[1]
    monkeypatch.setattr("popup.lab.data.digits.find_spec", lambda name: None)
    assert all(torch.equal(now, before) for now, before in zip((*digits().train, *digits().test),
                                                              (*found.train, *found.test), strict=True))


def test_the_digits_are_split_by_class_and_once():
    data = DATASETS["digits"](DataRequest(directory=None))
    assert (len(data.train[1]), len(data.test[1]), data.image, data.classes) == (1438, 359, (1, 8, 8), 10)
    assert torch.equal(data.test[1], digits().test[1])
    every = (torch.bincount(data.train[1]) + torch.bincount(data.test[1])).tolist()
    assert torch.bincount(data.test[1]).tolist() == [(count + 2) // 5 for count in every]


def numbered(per_class):
    """A data set whose images are their own numbers: per_class[c] images of class c, in a mixed order."""
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(len(per_class)), per_class)))
    images = torch.arange(len(labels)).view(-1, 1, 1, 1)
    return Dataset("numbered", len(per_class), (images, labels), (-1 - images[:3], labels[:3]))


@pytest.mark.parametrize("fraction", [0.1, 0.29, 0.5, 0.9])
def test_validation_is_that_fraction_of_each_class_and_none_of_the_test_data(fraction):
    data = numbered([50, 10, 100])
    held = hold_out(data, fraction)
    counts = torch.bincount(held.test[1]).tolist()
    assert counts == [round(fraction * 50 + 1e-9), round(fraction * 10 + 1e-9), round(fraction * 100 + 1e-9)]
    both = torch.cat([held.train[0], held.test[0]]).flatten()
    assert torch.equal(both.sort().values, torch.arange(160)) and len(held.train[1]) + len(held.test[1]) == 160
    for images, labels in (held.train, held.test):
        assert torch.equal(labels, data.train[1][images.flatten()])
    assert (held.evaluated_on, data.evaluated_on, held.classes, held.title) == ("validation", "test", 3, "numbered")


def test_validation_is_the_same_every_time_nested_and_not_just_the_first():
    data = numbered([100, 100])
    few, many = (set(hold_out(data, fraction).test[0].flatten().tolist()) for fraction in (0.1, 0.3))
    assert few < many and few == set(hold_out(data, 0.1).test[0].flatten().tolist())
    assert max(few) > 150


def test_a_class_keeps_an_image_for_training():
    held = hold_out(numbered([2, 1, 40]), 0.9)
    assert torch.bincount(held.train[1]).tolist() == [1, 1, 4]
    assert torch.bincount(held.test[1], minlength=3).tolist() == [1, 0, 36]


def test_a_class_without_training_images_is_no_hindrance():
    data = Dataset("gap", 3, (torch.zeros(20, 1, 2, 2), torch.arange(20) % 2), (torch.zeros(1, 1, 2, 2), torch.tensor([2])))
    assert torch.bincount(hold_out(data, 0.5).test[1]).tolist() == [5, 5]


def test_holding_out_nothing_is_refused():
    with pytest.raises(UsageError, match=r"validation is 0.01: of 20 training images"):
        hold_out(numbered([10, 10]), 0.01)

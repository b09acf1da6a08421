"""Folders of images: which are found, how they are decoded, cached and refused."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from popup.errors import UsageError
from popup.lab.data import cache, folder
from popup.lab.data.dataset import DataRequest
from popup.lab.data.datasets import load_dataset
from popup.lab.data.folder import decode_image

ROOT = Path(__file__).parents[3]


def save(path, size=(6, 4), mode="RGB", seed=0):
    """An image of random pixels; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def images(tmp_path):
    """Two classes, three training and two test images each, JPEG and PNG."""
    root = tmp_path / "pets"
    for label, name in enumerate(("cat", "dog")):
        for number in range(3):
            save(root / "train" / name / f"{number}.{'jpg' if number else 'png'}", seed=10 * label + number)
        for number in range(2):
            save(root / "test" / name / f"{number}.jpg", seed=100 + 10 * label + number)
    return root


def load(root, side=0):
    return load_dataset(f"folder:{root}", DataRequest(root.parent / "data", side=side))


def test_the_same_pixels_labels_and_order_as_torchvisions_image_folder(images):
    data = load(images)
    for split, (pixels, labels) in (("train", data.train), ("test", data.test)):
        reference = ImageFolder(str(images / split))
        assert len(reference) == len(labels)
        for place, (image, label) in enumerate(reference):
            assert label == labels[place]
            assert np.array_equal(np.asarray(image).transpose(2, 0, 1), pixels[place].numpy())
    assert (data.title, data.classes, data.image) == ("pets", 2, (3, 4, 6))
    assert data.train[0].dtype is torch.uint8 and data.train[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_decoded_once_and_mapped_into_memory_after(images, monkeypatch):
    first = load(images)
    monkeypatch.setattr(folder, "decode_image", lambda *_: pytest.fail("decoded twice"))
    second = load(images)
    assert torch.equal(first.train[0], second.train[0]) and first.fingerprint == second.fingerprint
    assert len(list((images.parent / "data" / "decoded").glob("pets-*"))) == 1


def same(one, other):
    """Whether two data sets are equal, to the bit."""
    return one.fingerprint == other.fingerprint and all(
        torch.equal(mine, theirs) for mine, theirs in zip((*one.train, *one.test), (*other.train, *other.test), strict=True))


def copied(data):
    """The data set in memory of its own, which no change of the files reaches."""
    return replace(data, train=tuple(part.clone() for part in data.train), test=tuple(part.clone() for part in data.test))


def flipped(folder):
    path = folder / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def of_another(folder):
    other = next(path for path in folder.parent.iterdir() if path.is_dir() and path != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def another_kind(folder):
    np.save(folder / "train_labels.npy", np.zeros((3, 2), dtype=[("a", "<i4")]))


def a_pipe(folder):
    (folder / "test_images.npy").unlink()
    os.mkfifo(folder / "test_images.npy")


def a_link(folder):
    shutil.move(folder, folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def with_the_seal_of_its_own(folder):
    """Other images with their own seal, but under the fingerprint of the first."""
    flipped(folder)
    fingerprint = (folder / "fingerprint.txt").read_text().splitlines()[0]
    key = folder.name.rpartition("-")[2]
    seal = cache._seal_of(key, fingerprint, cache._digest(folder, cache.ARRAYS))
    (folder / "fingerprint.txt").write_text(f"{fingerprint}\n{seal}\n")


@pytest.mark.parametrize("spoil", [flipped, of_another, another_kind, a_pipe, a_link, with_the_seal_of_its_own])
def test_a_cache_that_was_changed_is_not_believed(images, spoil, capsys, tmp_path):
    save(tmp_path / "other" / "train" / "x" / "0.png", seed=50)
    save(tmp_path / "other" / "test" / "x" / "0.png", seed=51)
    before = copied(load(images))
    folder, = (images.parent / "data" / "decoded").glob("pets-*")
    load_dataset(f"folder:{tmp_path / 'other'}", DataRequest(images.parent / "data"))
    spoil(folder)
    assert same(load(images), before) and capsys.readouterr().err.count("they are made anew") == 1
    assert same(load(images), before) and capsys.readouterr().err == ""


def test_the_cache_is_not_written_through_the_tensors(images):
    load(images).train[0].zero_()
    assert load(images).train[0].any()


@pytest.mark.parametrize("name", [*cache.ARRAYS, "fingerprint"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_cache_is_made_anew_and_one_line_says_so(images, name, damage, capsys):
    before = load(images)
    path, = (images.parent / "data" / "decoded").glob(f"pets-*/{name}.*")
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:6])
    after = load(images)
    error = capsys.readouterr().err
    assert "the decoded images in" in error and "they are made anew" in error and error.count("\n") == 1
    assert same(before, after) and path.read_bytes() == content


@pytest.mark.parametrize("change", ["content", "name", "more", "class", "side"])
def test_what_changes_the_data_decodes_anew(images, change):
    before = load(images)
    path = images / "train" / "cat" / "0.png"
    if change == "content":
        save(path, seed=77)
        os.utime(path, ns=(1, 1))
    elif change == "name":
        path.rename(path.with_name("9.png"))
    elif change == "more":
        save(path.with_name("more.png"), seed=5)
    elif change == "class":
        path.rename(images / "train" / "dog" / "z.png")
    after = load(images, side=3 if change == "side" else 0)
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("how", ["another folder", "moved there", "linked there"])
def test_other_images_of_the_same_names_sizes_and_times_are_not_answered_with_the_first(tmp_path, how):
    """BMP files of one size have one length, and tar --mtime sets every time."""
    roots = [tmp_path / place / "pets" for place in ("one", "other")]
    for seed, root in enumerate(roots):
        for number, split in enumerate(("train", "test")):
            save(root / split / "cat" / "0.bmp", seed=10 * seed + number)
            os.utime(root / split / "cat" / "0.bmp", ns=(1, 1))
    known = tmp_path / "pets"
    request, place = DataRequest(tmp_path / "data"), roots[0] if how == "another folder" else known
    if how == "linked there":
        known.symlink_to(roots[0])
    elif how == "moved there":
        roots[0].rename(known)
    before = load_dataset(f"folder:{place}", request)
    if how == "linked there":
        known.unlink()
        known.symlink_to(roots[1])
    elif how == "moved there":
        for split in ("train", "test"):
            (roots[1] / split / "cat" / "0.bmp").rename(known / split / "cat" / "0.bmp")
    after = load_dataset(f"folder:{roots[1] if how == 'another folder' else known}", request)
    assert after.fingerprint != before.fingerprint
    wanted = (known if how == "moved there" else roots[1]) / "train" / "cat" / "0.bmp"
    assert np.array_equal(after.train[0][0].numpy(), decode_image(wanted))


def test_links_to_images_and_folders_are_followed(images, tmp_path):
    """Two to one folder, too: only a folder in itself has no end."""
    for name in ("one", "two"):
        save(tmp_path / "elsewhere" / f"{name}.png", seed=5)
        (images / "train" / "cat" / name).symlink_to(tmp_path / "elsewhere")
    (images / "train" / "dog" / "9.png").symlink_to(tmp_path / "elsewhere" / "one.png")
    assert load(images).train[1].tolist() == [0] * 7 + [1] * 4


def test_title_txt_names_the_data_set(images):
    (images / "title.txt").write_text("CIFAR-10 (JPEG)\nmore\n")
    assert load(images).title == "CIFAR-10 (JPEG)"
    (images / "title.txt").write_text("")
    assert load(images).title == "pets"


@pytest.mark.parametrize(("names", "taken"), [(["val"], "val"), (["validation"], "validation"), (["test", "val"], "test")])
def test_which_folder_is_the_test_split(tmp_path, names, taken):
    save(tmp_path / "train" / "a" / "0.png")
    for place, name in enumerate(("test", "val", "validation")):
        if name in names:
            save(tmp_path / name / "a" / "0.png", seed=place + 1)
    data = load_dataset(f"folder:{tmp_path}", DataRequest(tmp_path / "data"))
    assert np.array_equal(data.test[0][0].numpy(), decode_image(tmp_path / taken / "a" / "0.png"))


def test_a_test_folder_without_labels_gives_way_to_val(tmp_path):
    save(tmp_path / "train" / "a" / "0.png")
    save(tmp_path / "test" / "images" / "0.png", seed=1)
    save(tmp_path / "val" / "a" / "0.png", seed=2)
    data = load_dataset(f"folder:{tmp_path}", DataRequest(tmp_path / "data"))
    assert np.array_equal(data.test[0][0].numpy(), decode_image(tmp_path / "val" / "a" / "0.png"))


def test_tiny_imagenet_as_it_is_published(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for label, name in enumerate(("n01443537", "n01629819")):
        for number in range(2):
            save(root / "train" / name / "images" / f"{name}_{number}.JPEG", (64, 64), "L" if number else "RGB", label)
    for number in range(3):
        save(root / "val" / "images" / f"val_{number}.JPEG", (64, 64), seed=number)
    (root / "val" / "val_annotations.txt").write_text("".join(
        f"val_{number}.JPEG\t{name}\t0\t32\t44\t62\n"
        for number, name in enumerate(("n01629819", "n01443537", "n01629819"))))
    save(root / "test" / "images" / "test_0.JPEG", (64, 64))
    data = load_dataset("tiny_imagenet", DataRequest(tmp_path))
    assert (data.title, data.classes, data.image) == ("Tiny-ImageNet", 2, (3, 64, 64))
    assert data.train[1].tolist() == [0, 0, 1, 1] and data.test[1].tolist() == [1, 0, 1]
    assert np.array_equal(data.test[0][2].numpy(), decode_image(root / "val" / "images" / "val_2.JPEG"))


def test_imagenet_is_resized_to_the_side_that_is_asked_for(tmp_path):
    save(tmp_path / "imagenet" / "train" / "n01440764" / "a.JPEG", (50, 40))
    save(tmp_path / "imagenet" / "train" / "n01443537" / "b.JPEG", (30, 60))
    save(tmp_path / "imagenet" / "val" / "n01440764" / "c.JPEG", (33, 33))
    data = load_dataset("imagenet", DataRequest(tmp_path, side=16))
    assert (data.title, data.image, len(data.test[1])) == ("ImageNet", (3, 16, 16), 1)
    with pytest.raises(UsageError, match=r"is 30x60 pixels and .*a\.JPEG is 50x40 pixels: give --image-size"):
        load_dataset("imagenet", DataRequest(tmp_path))


def test_resizing_keeps_the_middle(tmp_path):
    stripes = np.zeros((4, 12, 3), dtype=np.uint8)
    stripes[:, 4:8] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert (decode_image(tmp_path / "a.png", 4) == 255).all()
    assert decode_image(tmp_path / "a.png", 2).shape == (3, 2, 2)
    assert decode_image(tmp_path / "a.png").shape == (3, 4, 12)


@pytest.mark.parametrize(("kind", "name"), [(np.uint16, "a.png"), (np.uint16, "a.tif"), (np.uint16, "a.pgm"), (np.int32, "a.tif"),
                                            (np.float32, "a.tif")])
def test_images_of_more_than_eight_bits_are_refused(tmp_path, kind, name):
    """Pillow would make all of their pixels above 255 white (and of floats up to 1 black)."""
    pixels = np.arange(0, 32000, 1000).reshape(4, 8).astype(kind)
    if name.endswith("pgm"):  # which an older Pillow reads, but does not write
        (tmp_path / name).write_bytes(b"P5 8 4 65535\n" + pixels.astype(">u2").tobytes())
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    with pytest.raises(UsageError, match=rf"{name} has pixels of more than 8 bits .*save it with 8 bits") as error:
        decode_image(tmp_path / name)
    assert "\n" not in str(error.value)


def broken(root):
    (root / "train" / "cat" / "1.jpg").write_bytes(b"\xff\xd8no")


def truncated(root):
    path = root / "train" / "cat" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-200])


REFUSED = {
    "an unreadable image": (broken, r"cat/1\.jpg is not an image that can be read"),
    "a truncated image": (truncated, r"cat/1\.jpg is not an image that can be read"),
    "another size": (lambda root: save(root / "test" / "dog" / "1.jpg", (6, 5)),
                     r"dog/1\.jpg is 6x5 .*0\.png is 6x4 .*--image-size"),
    "an empty class": (lambda root: (root / "train" / "eel").mkdir(), r"train/eel holds no image"),
    "a test class of its own": (lambda root: save(root / "test" / "eel" / "0.jpg"),
                                r"test/eel is a class that .*train lacks"),
    "a link to nowhere": (lambda root: (root / "train" / "cat" / "x.png").symlink_to("gone.png"),
                          r"cat/x\.png is a link that leads nowhere"),
    "a class that is one": (lambda root: (root / "train" / "eel").symlink_to("/nowhere"), r"eel is a link that leads nowhere"),
    "a link to itself": (lambda root: (root / "train" / "cat" / "x.png").symlink_to("x.png"),
                         r"cat/x\.png is a link that leads nowhere"),
    "a folder in itself": (lambda root: (root / "train" / "cat" / "more").symlink_to(root / "train" / "cat"),
                           r"cat/more is a link to a folder that it lies in"),
    "a pipe": (lambda root: os.mkfifo(root / "test" / "dog" / "x.png"), r"dog/x\.png is no file"),
    "no test": (lambda root: (root / "test").rename(root / "exam"), r"no labelled image in test/CLASS/"),
    "no train": (lambda root: (root / "train").rename(root / "exam"), r"has no train/CLASS/"),
    "no folder": (lambda root: root.rename(root.parent / "other"), r"no folder .*pets'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_set_is_one_line_and_leaves_no_cache(images, case):
    spoil, words = REFUSED[case]
    spoil(images)
    with pytest.raises(UsageError, match=words) as error:
        load(images)
    assert "\n" not in str(error.value)
    assert {path.name for path in (images.parent / "data").glob("decoded/*")} <= {".lock"}


@pytest.mark.parametrize(("name", "words"), [("tiny_imagenet", "tiny-imagenet-200.zip"), ("imagenet", "image-net.org")])
def test_missing_folders_say_where_to_get_them(name, words, tmp_path):
    with pytest.raises(UsageError, match=rf"'{name}' is not in .*{words}.*--data-dir"):
        load_dataset(name, DataRequest(tmp_path))


def test_a_set_that_does_not_fit_on_the_disk_is_refused_before_decoding(images, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=719))
    with pytest.raises(UsageError, match=r"decoded images take 720 bytes and .* has 719 bytes free.*--image-size"):
        load(images)  # ten images of 72 bytes


@pytest.mark.parametrize("memory", [float("inf"), 1 << 62])
def test_with_a_size_given_no_image_is_decoded_before_there_is_known_to_be_room(images, memory, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    for name in ("decode_image", "decode_as"):
        monkeypatch.setattr(folder, name, lambda *_, **options: pytest.fail("decoded"))
    with pytest.raises(UsageError, match=r"decoded images take 30000\.0 GB .*--image-size"):
        load_dataset(f"folder:{images}", DataRequest(images.parent / "data", side=10**6, memory=memory))


def test_a_data_directory_that_cannot_be_written_is_named(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to .*file/decoded.*--data-dir"):
        load_dataset(f"folder:{images}", DataRequest(tmp_path / "file"))


def test_two_processes_that_start_together_decode_once(images):
    """Each prints how often it decoded an image; the second waits for the first and finds its work."""
    script = ("import sys\nfrom pathlib import Path\nfrom popup.lab.data import folder\n"
              "from popup.lab.data.datasets import DataRequest, load_dataset\n"
              "decode, count = folder.decode_as, []\n"
              "folder.decode_as = lambda path, **how: (count.append(path), decode(path, **how))[1]\n"
              "data = load_dataset(f'folder:{sys.argv[1]}', DataRequest(Path(sys.argv[1]).parent / 'data'))\n"
              "print(len(count), data.fingerprint)")
    both = [subprocess.Popen([sys.executable, "-c", script, str(images)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    printed = [process.communicate()[0].split() for process in both]
    assert sorted(int(count) for count, _ in printed) == [0, 10]
    assert printed[0][1] == printed[1][1]
    assert [path.name[:5] for path in sorted((images.parent / "data" / "decoded").iterdir())] == [".lock", "pets-"]

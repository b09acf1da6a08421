"""Sixty untidy folders of images: how many images of which classes are right, or the words of the refusal."""

import os
import re
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from popup.errors import UsageError
from popup.lab.data.dataset import DataRequest
from popup.lab.data.datasets import load_dataset
from popup.lab.data.decode import decode_image


def image(path, kind=None, size=(5, 4), mode="RGB", **options):
    """An image of that many pixels; `kind`: what it is where its ending does not say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, options.pop("colour", None) or 0).save(path, kind, **options)
    return path


def deep_png(path, colour=2, channels=3):
    """A PNG of 16 bits a channel, all 3000."""
    width, height = 5, 4
    rows = b"".join(b"\0" + np.full(width * channels, 3000, dtype=">u2").tobytes() for _ in range(height))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows)),
             (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts))


def claimed(path, width, height):
    """A small PNG that says that it has so many pixels."""
    image(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(content)


@pytest.fixture
def root(tmp_path):
    """Two classes of three training and two test images."""
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                image(tmp_path / "pets" / split / name / f"{number}.png")
    return tmp_path / "pets"


def tiny(root, listed=("a.png", "b.png"), there=("a.png", "b.png"), labels=("cat", "dog")):
    """A val/ as Tiny-ImageNet has it, in the place of test/."""
    (root / "test").rename(root / "unused")
    for name in there:
        image(root / "val" / "images" / name)
    (root / "val" / "val_annotations.txt").write_text("".join(f"{name}\t{label}\t0\n" for name, label in
                                                              zip(listed, labels, strict=False)))


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def png_bytes(root):
    return (root / "train/cat/0.png").read_bytes()


AS_IT_IS = ([3, 3], [2, 2])
ONE_MORE = ([4, 3], [2, 2])
CASES = {  # what is done to the folder; images by class in training and test, and the words of the notes
    "as it is": (lambda root: None, *AS_IT_IS, ""),
    "a hidden file": (lambda root: image(root / "train/cat/.9.png"), *AS_IT_IS, "left out of .*train: 1 hidden"),
    "what a Mac leaves": (lambda root: write(root / "train/cat/._0.png"), *AS_IT_IS, "1 hidden"),
    "a hidden folder in a class": (lambda root: image(root / "train/cat/.ipynb_checkpoints/0.png"), *AS_IT_IS, "1 hidden"),
    "thumbnails": (lambda root: image(root / "test/dog/.thumbnails/large/0.png"), *AS_IT_IS, "left out of .*test: 1 hidden"),
    "a hidden class": (lambda root: image(root / "train/.git/0.png"), *AS_IT_IS, "1 hidden"),
    "an unpacked Mac's archive": (lambda root: image(root / "train/__MACOSX/cat/0.png"), *AS_IT_IS, "1 hidden"),
    "such an archive in a class": (lambda root: image(root / "train/cat/__MACOSX/0.png"), *AS_IT_IS, "1 hidden"),
    "a jfif": (lambda root: image(root / "train/cat/9.jfif", "JPEG"), *ONE_MORE, ""),
    "a jpe": (lambda root: image(root / "train/cat/9.jpe", "JPEG"), *ONE_MORE, ""),
    "capitals": (lambda root: image(root / "train/cat/9.JPG"), *ONE_MORE, ""),
    "a webp": (lambda root: image(root / "train/cat/9.webp"), *ONE_MORE, ""),
    "a tiff": (lambda root: image(root / "train/cat/9.TIFF"), *ONE_MORE, ""),
    "a bmp": (lambda root: image(root / "train/cat/9.bmp"), *ONE_MORE, ""),
    "a ppm": (lambda root: image(root / "train/cat/9.ppm"), *ONE_MORE, ""),
    "a gif": (lambda root: image(root / "train/cat/9.gif"), *AS_IT_IS, "left out of .*train: 1 .gif"),
    "gifs": (lambda root: [image(root / f"test/cat/{number}.gif") for number in range(3)], *AS_IT_IS, "test: 3 .gif"),
    "an avif": (lambda root: write(root / "train/cat/9.avif"), *AS_IT_IS, "1 .avif"),
    "an array": (lambda root: np.save(root / "train/cat/9.npy", np.zeros(3)), *AS_IT_IS, "1 .npy"),
    "a backup": (lambda root: image(root / "train/cat/0.png~", "PNG"), *AS_IT_IS, "1 .png~"),
    "no ending": (lambda root: image(root / "train/cat/9", "PNG"), *AS_IT_IS, "1 without an ending"),
    "Windows' file": (lambda root: write(root / "train/cat/Thumbs.db"), *AS_IT_IS, "1 .db"),
    "a text": (lambda root: write(root / "train/cat/read me.txt"), *AS_IT_IS, "1 .txt"),
    "an ending to obey": (lambda root: write(root / "train/cat/x.\x1b[31m"), *AS_IT_IS, r"1 \.\?\[31m"),
    "an image beside the classes": (lambda root: image(root / "train/9.png"), *AS_IT_IS, "1 .png outside any class"),
    "a text beside the classes": (lambda root: write(root / "test/labels.csv"), *AS_IT_IS, "1 .csv outside any class"),
    "many kinds": (lambda root: [write(root / f"train/cat/x.{end}") for end in "abcdefg"], *AS_IT_IS, "train: .*, \\.\\.\\."),
    "folders in a class": (lambda root: image(root / "train/cat/more/and more/9.png"), *ONE_MORE, ""),
    "a link to an image": (lambda root: (root / "train/cat/9.png").symlink_to("0.png"), *ONE_MORE, ""),
    "a name of any letters": (lambda root: image(root / "train/cat/ä 漢\n'\".png"), *ONE_MORE, ""),
    "a class of any letters": (lambda root: [image(root / split / "a $\\frac{$ b/0.png") for split in ("train", "test")],
                               [1, 3, 3], [1, 2, 2], ""),
    "a png called jpg": (lambda root: image(root / "train/cat/9.jpg", "PNG"), *ONE_MORE, ""),
    "a test class that is missing": (lambda root: (root / "test/dog").rename(root / "unused"), [3, 3], [2],
                                     "WARNING: .*test has no image of 1 of 2 classes .dog., so accuracy is over the others"),
    "a test class that is empty": (lambda root: [path.unlink() for path in (root / "test/dog").iterdir()], [3, 3], [2],
                                   "no image of 1 of 2 classes .dog."),
    "a test class of others": (lambda root: [path.rename(path.with_suffix(".gif")) for path in (root / "test/dog").iterdir()],
                               [3, 3], [2], "test: 2 .gif.*no image of 1 of 2"),
    "tiny": (tiny, [3, 3], [1, 1], ""),
    "tiny, a class alone": (lambda root: tiny(root, labels=("dog", "dog")), [3, 3], [0, 2], "no image of 1 of 2 classes .cat."),
    "tiny, more images than the list": (lambda root: tiny(root, there=("a.png", "b.png", "c.png")), [3, 3], [1, 1],
                                        "val: 1 not in val_annotations.txt"),
    "tiny, sorted": (lambda root: (tiny(root), *((root / "val" / name).mkdir() for name in ("cat", "dog")),
                                   (root / "val/images/a.png").rename(root / "val/cat/a.png"),
                                   (root / "val/images/b.png").rename(root / "val/dog/b.png")), [3, 3], [1, 1], ""),
    "tiny, a hidden image": (lambda root: (tiny(root), image(root / "val/images/.a.png")), [3, 3], [1, 1], "1 hidden"),
    "alpha": (lambda root: image(root / "train/cat/9.png", mode="RGBA"), *ONE_MORE, ""),
    "grey": (lambda root: image(root / "train/cat/9.png", mode="L"), *ONE_MORE, ""),
    "a palette": (lambda root: image(root / "train/cat/9.png", mode="P"), *ONE_MORE, ""),
    "black and white": (lambda root: image(root / "train/cat/9.png", mode="1"), *ONE_MORE, ""),
    "four inks": (lambda root: image(root / "train/cat/9.jpg", mode="CMYK"), *ONE_MORE, ""),
    "frames": (lambda root: image(root / "train/cat/9.tif", save_all=True, append_images=[Image.new("RGB", (5, 4))]), *ONE_MORE,
               ""),
    "a title that is a pipe": (lambda root: os.mkfifo(root / "title.txt"), *AS_IT_IS, ""),
}
REFUSED = {
    "a program's file": (lambda root: write(root / "train/cat/1.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n"),
                         "1.jpg is not an image that can be read"),
    "a gif called png": (lambda root: image(root / "train/cat/1.png", "GIF"), "1.png is not an image"),
    "an icon called png": (lambda root: image(root / "train/cat/1.png", "ICO", (16, 16)), "1.png is not an image"),
    "an empty file": (lambda root: write(root / "train/cat/1.png", b""), "1.png is not an image"),
    "a page of the web": (lambda root: write(root / "train/cat/1.png", b"<html>not found</html>"), "1.png is not an image"),
    "a cut image": (lambda root: write(root / "train/cat/1.png", png_bytes(root)[:45]), "1.png is not an image"),
    "millions of pixels": (lambda root: claimed(root / "train/cat/1.png", 10_000, 9000), "10,000 x 9,000 pixels, more than"),
    "more pixels than that": (lambda root: claimed(root / "train/cat/1.png", 2**30, 2**30), "1.png (has|is not an image)"),
    "deep colours": (lambda root: deep_png(root / "train/cat/1.png"), "more than 8 bits"),
    "deep colours, alpha": (lambda root: deep_png(root / "train/cat/1.png", 6, 4), "more than 8 bits"),
    "deep grey, alpha": (lambda root: deep_png(root / "train/cat/1.png", 4, 2), "more than 8 bits"),
    "a deep ppm": (lambda root: write(root / "train/cat/1.ppm", b"P6 5 4 65535\n" + bytes(120)), "more than 8 bits"),
    "an unlike class": (lambda root: image(root / "test/Cat/0.png"), "test/Cat is a class that .* lacks"),
    "tiny, images that are gone": (lambda root: tiny(root, there=("a.png",)),
                                   "lists 1 of 2 images that are not there .b.png"),
    "tiny, flat and sorted": (lambda root: (tiny(root), image(root / "val/cat/a.png"), image(root / "val/dog/b.png")),
                              "val holds 2 images more than once"),
    "tiny, listed twice": (lambda root: tiny(root, listed=("a.png", "a.png"), there=("a.png",)), "lists 1 images more than once"),
    "tiny, sorted otherwise": (lambda root: (tiny(root), (root / "val/dog").mkdir(),
                                             (root / "val/images/a.png").rename(root / "val/dog/a.png")), "is of class 'cat' by"),
    "tiny, a list of no text": (lambda root: (tiny(root), write(root / "val/val_annotations.txt", b"\xff\xfe")), "is not text"),
    "an empty class": (lambda root: (root / "train/eel").mkdir(), "eel holds no image"),
    "a class of hidden images": (lambda root: image(root / "train/eel/.0.png"), "eel holds no image"),
}


def load(root):
    return load_dataset(f"folder:{root}", DataRequest(root.parent / "data"))


def test_there_are_sixty():
    assert len(CASES) + len(REFUSED) >= 60


@pytest.mark.parametrize("case", CASES)
def test_an_untidy_folder_is_counted_right_or_told_of(case, root):
    spoil, train, test, words = CASES[case]
    spoil(root)
    data = load(root)
    counted = [np.bincount(split[1].numpy()).tolist() for split in (data.train, data.test)]
    assert counted == [train, test] and data.classes == len(train) and len(data.train[0]) == sum(train)
    notes = " / ".join(data.notes)
    assert re.search(words, notes) and bool(words) == bool(notes), notes
    first, *others = data.described()
    assert f"{sum(train)} images of 3x4x5, {len(train)} classes, smallest class {min(train)} (" in first
    assert others == list(data.notes) and all(line.isprintable() for line in (first, *others))


@pytest.mark.parametrize("case", REFUSED)
def test_an_untidy_folder_that_cannot_be_counted_is_refused_in_one_line(case, root):
    spoil, words = REFUSED[case]
    (root / "train/cat/1.png").unlink()
    spoil(root)
    with pytest.raises(UsageError, match=words) as error:
        load(root)
    assert "\n" not in str(error.value)


def test_what_is_usual_is_done_with_alpha_rotation_and_frames(tmp_path):
    """As torchvision's ImageFolder does: colours as stored, no rotation, the first frame."""
    clear = Image.new("RGBA", (5, 4), (200, 100, 50, 0))
    clear.save(tmp_path / "alpha.png")
    assert decode_image(tmp_path / "alpha.png")[:, 0, 0].tolist() == [200, 100, 50]
    tagged = Image.new("RGB", (5, 4))
    tags = tagged.getexif()
    tags[0x0112] = 6
    tagged.save(tmp_path / "turned.jpg", exif=tags)
    assert decode_image(tmp_path / "turned.jpg").shape == (3, 4, 5)
    Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / "frames.tif", save_all=True, append_images=[Image.new("RGB", (5, 4))])
    assert (decode_image(tmp_path / "frames.tif") == 9).all()


def test_a_thread_that_has_opened_its_image_leaves_the_others_without_warnings(root, monkeypatch):
    """Pillow warns of each image here, and a warning is an error: the second to be opened is so when the first is done."""
    opened, order, second = Image.open, [], threading.Event()

    def slowly(file, **options):
        order.append(threading.current_thread() is not threading.main_thread())
        if sum(order) == 1 and order[-1]:
            second.wait(2)
        elif sum(order) == 2 and order[-1]:
            second.set()
            time.sleep(0.1)
        return opened(file, **options)

    monkeypatch.setattr(Image, "open", slowly)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    monkeypatch.setattr("popup.lab.data.folder.usable_cores", lambda: 2)
    assert len(load(root).train[0]) > 2 and second.is_set()

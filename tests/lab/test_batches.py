"""Batches: every image once an epoch, exact normalisation, and augmentations that do what their papers say."""

import numpy as np
import pytest
import torch

from popup.errors import UsageError
from popup.lab.config import AUGMENTATIONS
from popup.lab.training.augmentation import Augmentation, cut_out, draw_boxes, resize_boxes, shift_and_flip
from popup.lab.training.batches import Batches, Normalise
from popup.source.streams import Stream


def images(count=40, channels=3, side=8):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, channels, side, side + 2), dtype=torch.uint8, generator=generator)


def batches(augment=(), seed=0, size=7, **options):
    pictures = images(**options)
    return Batches(pictures, torch.arange(len(pictures)), size, augment, seed)


@pytest.mark.parametrize("count", [1, 255, 256, 1000])
def test_normalisation_is_the_mean_and_deviation_of_all_pixels_of_a_channel(count):
    pictures = images(count)
    pictures[:, 1] //= 16
    pixels = pictures.transpose(0, 1).flatten(1).double()
    normalise = Normalise(pictures)
    assert torch.equal(normalise.mean.flatten(), pixels.mean(1).float())
    assert torch.equal(normalise.deviation.flatten(), pixels.std(1, correction=0).float())
    made = normalise(pictures).transpose(0, 1).flatten(1)
    assert made.mean(1).abs().max() < 1e-5 and (made.std(1, correction=0) - 1).abs().max() < 1e-5


def test_a_constant_channel_becomes_zero_and_floats_stay():
    normalise = Normalise(torch.full((2, 1, 2, 2), 9, dtype=torch.uint8))
    assert torch.equal(normalise(torch.full((1, 1, 2, 2), 9)), torch.zeros(1, 1, 2, 2))
    floats = torch.randn(3, 1, 2, 2)
    assert Normalise(floats)(floats) is floats


def test_what_is_constant_in_training_is_only_shifted():
    """As scikit-learn's StandardScaler does: a test row that has one more would else come to an input of a million."""
    rows = torch.tensor([[7, 0], [7, 2], [7, 4]], dtype=torch.uint8)
    made = Normalise(rows)(torch.tensor([[8, 2], [7, 2]], dtype=torch.uint8))
    assert torch.equal(made, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("augment", [(), *((name,) for name in AUGMENTATIONS), AUGMENTATIONS])
def test_an_epoch_is_every_image_once_in_its_own_order_and_can_be_drawn_again(augment):
    deal = batches(augment)
    first, again, second = (list(deal.epoch(number)) for number in (0, 0, 1))
    labels = torch.cat([part for _, part in first])
    assert len(first) == 5 and all(inputs.shape == (7, 3, 8, 10) and inputs.dtype is torch.float32 for inputs, _ in first)
    assert len(set(labels.tolist())) == 35
    assert all(torch.equal(x, y) for one, other in zip(first, again, strict=True) for x, y in zip(one, other, strict=True))
    assert not torch.equal(labels, torch.cat([part for _, part in second]))


def test_without_augmentation_inputs_are_the_images_of_their_labels():
    deal = batches()
    for inputs, labels in deal.epoch(3):
        assert torch.equal(inputs, deal.normalise(deal.images[labels]))


def test_crop_shifts_by_at_most_an_eighth_and_fills_with_zeros():
    picture = torch.arange(1, 17.0).view(1, 1, 4, 4)
    moved = shift_and_flip(picture, torch.tensor([[2, 0]]), torch.tensor([False]), (1, 1))
    assert torch.equal(moved[0, 0, :3, 1:], picture[0, 0, 1:, :3])
    assert not moved[0, 0, 3].any() and not moved[0, 0, :, 0].any()
    deal = batches(("crop",), side=16, size=40)
    (inputs, labels), = deal.epoch(0)
    found = set()
    for made, label in zip(inputs, labels, strict=True):
        padded = torch.nn.functional.pad(deal.images[label][None], (2,) * 4)
        offsets = [(row, column) for row in range(5) for column in range(5)
                   if torch.equal(made, deal.normalise(padded[:, :, row:row + 16, column:column + 18])[0])]
        assert len(offsets) == 1
        found |= set(offsets)
    assert len(found) > 12


def test_shifts_and_flips_are_of_pixels_and_crops_and_cutouts_of_what_is_normalised():
    """What is shifted in from outside is black; what a cutout leaves is the mean."""
    deal = batches(AUGMENTATIONS, size=40)
    (inputs, labels), = deal.epoch(2)
    draws, pixels = deal.augmentation.draw(2, 40, torch.device("cpu")), deal.images[labels]
    expected = deal.normalise(shift_and_flip(pixels, draws.shifts, draws.flips, (1, 1)))
    assert torch.equal(inputs, cut_out(resize_boxes(expected, draws.boxes), draws.centres, 4))
    assert torch.equal(deal.augmentation.of_pixels(pixels, draws), shift_and_flip(pixels, draws.shifts, draws.flips, (1, 1)))


@pytest.mark.parametrize("sides", [(8, 64), (64, 8), (20, 33)])
def test_an_image_that_is_no_square_is_shifted_by_an_eighth_of_each_side_and_loses_a_square_of_half_the_shorter(sides):
    crop, cutout = (Augmentation((name,), sides, 0) for name in ("crop", "cutout"))
    ones = torch.ones(200, 1, *sides)
    moved = crop.of_pixels(ones, crop.draw(0, 200, torch.device("cpu")))
    for axis, side in enumerate(sides):
        left = moved.sum(axis + 2).amax((1, 2))  # of the longest row or column
        assert left.min() == side - side // 8 and left.max() == side
    cut = (cutout.of_normalised(ones, cutout.draw(0, 200, torch.device("cpu"))) == 0)[:, 0]
    half = min(sides) // 2
    assert {int(cut.any(axis).sum(1).max()) for axis in (1, 2)} == {half} and cut.sum((1, 2)).max() == half**2


def test_the_shifts_of_square_images_are_drawn_as_ever():
    shifts = Augmentation(("crop",), (32, 32), 5).draw(2, 9, torch.device("cpu")).shifts
    assert shifts.flatten().tolist() == Stream(5, "crop", "2").integers(9, 18).tolist()


def test_flip_mirrors_about_half_of_the_images():
    deal = batches(("flip",), size=40)
    (inputs, labels), = deal.epoch(0)
    plain = deal.normalise(deal.images[labels])
    flipped = [torch.equal(made, image.flip(-1)) for made, image in zip(inputs, plain, strict=True)]
    kept = [torch.equal(made, image) for made, image in zip(inputs, plain, strict=True)]
    assert all(one != other for one, other in zip(flipped, kept, strict=True)) and 8 < sum(flipped) < 32


def test_cutout_sets_one_square_to_the_mean_and_clips_it_at_the_border():
    ones = torch.ones(4, 2, 6, 8)
    made = cut_out(ones, torch.tensor([[3, 4], [0, 0], [5, 7], [2, 0]]), 4)
    assert (made[0, 0] == 0).nonzero().aminmax(dim=0).min.tolist() == [1, 2]
    assert (made[0, 0] == 0).nonzero().aminmax(dim=0).max.tolist() == [4, 5]
    assert (made == 0).sum((1, 2, 3)).tolist() == [32, 8, 18, 16]
    assert torch.equal(made[:, 0], made[:, 1]) and ones.all()


def test_cutout_is_drawn_per_image_and_half_the_side_wide():
    deal = batches(("cutout",), side=16, size=40)
    (inputs, labels), = deal.epoch(0)
    plain = deal.normalise(deal.images[labels])
    changed = inputs != plain
    assert torch.equal(inputs[changed], torch.zeros(int(changed.sum())))
    sizes = changed[:, 0].sum((1, 2))
    assert sizes.max() <= 81 and sizes.max() >= 60 and sizes.min() >= 12 and len(set(sizes.tolist())) > 5


def test_a_box_is_resized_to_the_whole_image_bilinearly():
    pictures = torch.randn(3, 2, 8, 12)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.25], [0.0, 0.75, 1.0, 0.25]])
    made = resize_boxes(pictures, boxes)
    assert made[0].numpy() == pytest.approx(pictures[0].numpy(), abs=1e-5)
    for number, (rows, columns) in enumerate([(slice(2, 6), slice(6, 9)), (slice(0, 8), slice(9, 12))], 1):
        wanted = torch.nn.functional.interpolate(pictures[number:number + 1, :, rows, columns], (8, 12), mode="bilinear")
        inner = (slice(None), slice(1, -1) if rows.start else slice(None), slice(2, -2))  # its border sees beyond the box
        assert made[number][inner].numpy() == pytest.approx(wanted[0][inner].numpy(), abs=1e-5)


def test_boxes_lie_in_the_image_with_the_areas_and_ratios_of_the_paper():
    row, column, height, width = draw_boxes(Stream(0, "boxes").uniform(80_000)).T.astype(float)
    assert min(row.min(), column.min()) >= 0 and max((row + height).max(), (column + width).max()) <= 1 + 1e-6
    area, ratio, whole = height * width, width / height, np.maximum(height, width) >= 1
    assert 0.08 <= area.min() < 0.09 and 3 / 4 - 1e-6 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-6
    assert area[~whole].max() > 0.9 and np.log(ratio).mean() == pytest.approx(0, abs=0.005)
    assert np.mean(area < 0.54) == pytest.approx(0.5, abs=0.01), "areas are uniform where no side is clipped"
    places = np.stack([row / (1 - height + 1e-9), column / (1 - width + 1e-9)])[:, ~whole]
    assert places.mean(1) == pytest.approx(0.5, abs=0.01) and np.corrcoef(places)[0, 1] == pytest.approx(0, abs=0.02)


def test_resized_crops_are_drawn_per_image_and_epoch():
    deal = batches(("resized_crop",), size=40)
    (inputs, labels), = deal.epoch(0)
    boxes = torch.from_numpy(draw_boxes(Stream(0, "resized crop", "0").uniform(160)))
    assert torch.equal(inputs, resize_boxes(deal.normalise(deal.images[labels]), boxes))
    assert len({tuple(box) for box in boxes.tolist()}) == 40


def test_augmentation_needs_images():
    with pytest.raises(UsageError, match=r"augment is .*shape"):
        Batches(torch.zeros(4, 3), torch.arange(4), 2, ("flip",), 0)

"""Mirror images and shifts: exact as functions, and alike for an image, its mask, its smaller version and its video."""

import itertools

import numpy as np
import pytest

from diffux import data
from diffux.errors import DataError
from diffux.fields import Image, Label, Mask, Video

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 8, 12


def pooled(images, size):
    """Averages over blocks of size x size pixels, rounded down."""
    n, height, width, channels = images.shape
    return images.reshape(n, height // size, size, width // size, size, channels).astype(int).mean((2, 4)).astype(np.uint8)


@pytest.fixture(scope="module")
def partners():
    """Images that are not square, and what was made of them: a class for each pixel, half and quarter the size, and two frames."""
    image = RNG.integers(0, 256, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)
    made = {"mask": (image[..., 0] > 100).astype(np.uint8), "half": pooled(image, 2), "quarter": pooled(image, 4),
            "video": np.stack([image, 255 - image], axis=1), "label": np.arange(20)}  # fmt: skip
    return data.of_arrays({"quarter": made.pop("quarter"), "image": image, **made}, fields={"mask": Mask((HEIGHT, WIDTH))})


def batches(source, n=6, **augmented):
    return list(itertools.islice(data.loader(source, batch_size=10, seed=3, **augmented), n))


def assert_in_register(batch):
    image = batch["image"]
    np.testing.assert_array_equal(batch["mask"], image[..., 0] > 100)
    np.testing.assert_array_equal(batch["half"], pooled(image, 2))
    np.testing.assert_array_equal(batch["quarter"], pooled(image, 4))
    np.testing.assert_array_equal(batch["video"], np.stack([image, 255 - image], axis=1))


@pytest.mark.parametrize("augmented", [{"flip": True}, {"crop": 4}, {"flip": True, "crop": 4}])
def test_partners_stay_in_register_to_the_last_pixel(partners, augmented):
    stored = data.arrays(partners)["image"]
    changed = 0
    for batch in batches(partners, **augmented):
        assert_in_register(batch)
        changed += int((batch["image"] != stored[batch["label"]]).any((1, 2, 3)).sum())
    assert 20 < changed < 60  # of 60; some images are left as they were


def test_shifts_are_whole_pixels_of_the_smallest_partner(partners):
    """Each image is found again in the padded original at offsets 0, 4 or 8, all of which occur."""
    stored, found = data.arrays(partners)["image"], set()
    for batch in batches(partners, 10, crop=4):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            padded = np.pad(stored[label], ((4, 4), (4, 4), (0, 0)), mode="symmetric")
            places = [(y, x) for y in range(9) for x in range(9) if (padded[y : y + HEIGHT, x : x + WIDTH] == image).all()]
            assert len(places) == 1
            found |= set(places)
    assert found == set(itertools.product((0, 4, 8), repeat=2))


def test_without_training_nothing_is_turned(partners):
    stored = data.arrays(partners)
    batch = next(data.loader(partners, batch_size=20, seed=3, train=False, flip=True, crop=4))
    for name, values in stored.items():
        np.testing.assert_array_equal(batch[name], values)


def test_flip_mirrors_those_that_are_marked():
    for field, axis in ((Image((4, 5, 2)), 2), (Mask((4, 5)), 2), (Video((3, 4, 5, 2)), 3)):
        values = RNG.integers(0, 2, (3, *field.shape), dtype=np.uint8)
        before = values.copy()
        out = field.flip(values, np.array([True, False, True]))
        np.testing.assert_array_equal(values, before)
        np.testing.assert_array_equal(out[1], values[1])
        for column in range(5):
            np.testing.assert_array_equal(out[0].take(column, axis - 1), values[0].take(4 - column, axis - 1))
    assert Label(3).flip(np.arange(3), np.ones(3, bool)).tolist() == [0, 1, 2]


def test_crop_shifts_and_reflects():
    images = RNG.integers(0, 256, (4, 6, 7, 3), dtype=np.uint8)
    offsets = np.array([[2, 2], [0, 2], [3, 4], [2, 1]])
    out = Image((6, 7, 3)).crop(images, offsets, 2)
    np.testing.assert_array_equal(out[0], images[0])
    np.testing.assert_array_equal(out[1][2:], images[1][:-2])
    np.testing.assert_array_equal(out[1][0], images[1][2])  # the row beyond the border is its mirror image
    np.testing.assert_array_equal(out[2][:-1, :-2], images[2][1:, 2:])
    np.testing.assert_array_equal(out[3][:, 1:], images[3][:, :-1])
    np.testing.assert_array_equal(out[3][:, 0], images[3][:, 1])
    np.testing.assert_array_equal(Mask((6, 7)).crop(images[..., 0], offsets, 2), out[..., 0])
    frames = np.stack([images, images[::-1]], axis=1)
    np.testing.assert_array_equal(Video((2, 6, 7, 3)).crop(frames, offsets, 2)[:, 0], out)


@pytest.mark.parametrize(("arrays", "options", "words"), [
    ({"image": (8, 12, 1), "half": (4, 6, 1)}, {"crop": 3}, "crop=3 pixels are no whole pixels of a field of 1/2 the side; 2"),
    ({"image": (8, 12, 1), "square": (4, 4, 1)}, {"crop": 2}, "crop=2 cannot keep 8x12 and 4x4 pixels in register"),
    ({"image": (9, 12, 1), "other": (6, 8, 1)}, {"crop": 2}, "cannot keep 9x12 and 6x8"),
    ({"image": (4, 12, 1)}, {"crop": 4}, "crop=4 pixels does not fit images of 4x12 pixels"),
    ({"features": (4,)}, {"crop": 1}, "crop=1 is for images, and arrays holds arrays"),
    ({"features": (4,)}, {"flip": True}, "flip=True is for images, and arrays holds arrays"),
    ({"features": (4,)}, {"dequantize": True}, "dequantize=True is for images"),
])  # fmt: skip
def test_what_cannot_stay_in_register_is_refused(arrays, options, words):
    made = {name: np.zeros((4, *shape), np.uint8 if len(shape) == 3 else np.float32) for name, shape in arrays.items()}
    with pytest.raises(DataError, match=words) as error:
        data.loader(data.of_arrays(made), batch_size=2, seed=0, **options)
    assert "\n" not in str(error.value)

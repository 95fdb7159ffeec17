"""Colour patches that need no network, cut from the photographs inside scikit-learn and scikit-image."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from diffux.data.images import encode
from diffux.errors import DataError

# (package, file, shrink): each shrunk by box averages, so that a patch holds structure and no two pixels share a source
PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg", 2),
    "flower": ("sklearn", "datasets/images/flower.jpg", 2),
    "astronaut": ("skimage", "data/astronaut.png", 2),
    "chelsea": ("skimage", "data/chelsea.png", 2),
    "coffee": ("skimage", "data/coffee.png", 2),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg", 3),
    "immunohistochemistry": ("skimage", "data/ihc.png", 2),
    "motorcycle": ("skimage", "data/motorcycle_left.png", 2),
    "retina": ("skimage", "data/retina.jpg", 5),
    "rocket": ("skimage", "data/rocket.jpg", 2),
}
COUNTS = {"train": 1000, "test": 200}  # patches of each photograph
WHOLE = ("chelsea", "coffee")  # photographs that are held out whole, in the forms for it
WHOLE_COUNTS = {"train": 1250, "test": 500}
TILE = 48  # side of the squares that are held out
STRIDE = 2  # distance of neighbouring candidate patches
FLAT = 3.0  # a patch whose standard deviation is lower shows nothing


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """`size` is the side of the patches in pixels; `whole` are photographs of which all is held out, and no part of others."""

    size: int = 16
    whole: tuple[str, ...] = ()


class Builder(tfds.core.GeneratorBasedBuilder):
    """10,000 train and 2,000 test patches of 16x16x3 or 32x32x3; the label is the photograph, in the order above.

    Every fifth square of 48x48 pixels of a photograph is held out: test patches lie inside those, train patches
    touch none. Patches of one split overlap one another. In the forms "16_photographs" and "32_photographs" two photographs are
    held out whole: 10,000 train patches of the other eight, and 1,000 test patches of these.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS reads a class attribute)
        Config(name="16", size=16, description="patches of 16x16 pixels"),
        Config(name="32", size=32, description="patches of 32x32 pixels"),
        Config(name="16_photographs", size=16, whole=WHOLE, description="patches of 16x16 pixels, two photographs held out whole"),
        Config(name="32_photographs", size=32, whole=WHOLE, description="patches of 32x32 pixels, two photographs held out whole"),
    ]

    def _info(self):
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Colour patches of ten photographs that scikit-learn and scikit-image ship.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "label": tfds.features.ClassLabel(names=list(PHOTOGRAPHS)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        size, whole = self.builder_config.size, self.builder_config.whole
        for label, name in enumerate(PHOTOGRAPHS):
            if whole and (name in whole) != (split == "test"):
                continue
            image = photograph(name)
            found = corners(image, size) if whole else corners(image, size, split)
            for y, x in chosen(found, (WHOLE_COUNTS if whole else COUNTS)[split]):
                patch = np.ascontiguousarray(image[y : y + size, x : x + size])
                yield f"{name}-{y}-{x}", {"image": encode(patch), "label": label}


def photograph(name: str) -> np.ndarray:
    """The photograph, shrunk: uint8 (H, W, 3). It is read as a file: the packages' own loaders may download."""
    package, file, shrink = PHOTOGRAPHS[name]
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], file) if spec else Path(package, file)
    if not path.is_file():
        raise DataError(f"patches needs {file} of {package}, which is not installed: pip install {_PIP[package]}")
    return np.asarray(Image.open(path).convert("RGB").reduce(shrink))


_PIP = {"sklearn": "scikit-learn", "skimage": "scikit-image"}


def held_out(height: int, width: int) -> np.ndarray:
    """Which pixels are for the test split, bool (H, W): a knight's-move pattern of squares, a fifth of the area."""
    row, column = np.arange(height)[:, None] // TILE, np.arange(width)[None, :] // TILE
    return (2 * row + column) % 5 == 0


def chosen(found: np.ndarray, count: int) -> np.ndarray:
    """`count` of the corners (n, 2), evenly taken."""
    return found[np.linspace(0, len(found) - 1, count).astype(int)]


def corners(image: np.ndarray, size: int, split: str | None = None) -> np.ndarray:
    """(n, 2) upper left corners of the patches that are not flat, and allowed in a split, where it is of parts of a photograph."""
    y = np.arange(0, image.shape[0] - size + 1, STRIDE)
    x = np.arange(0, image.shape[1] - size + 1, STRIDE)

    def window_mean(values):  # by differences of a summed-area table
        table = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        low_y, low_x, high_y, high_x = y[:, None], x[None, :], y[:, None] + size, x[None, :] + size
        return (table[high_y, high_x] - table[high_y, low_x] - table[low_y, high_x] + table[low_y, low_x]) / size**2

    grey = image.astype(np.float64).mean(-1)
    structured = window_mean(grey**2) - window_mean(grey) ** 2 >= FLAT**2
    share = window_mean(held_out(*grey.shape))
    inside = {"test": share > 1 - 1e-9, "train": share < 1e-9, None: True}[split]
    rows, columns = np.nonzero(inside & structured)
    return np.stack([y[rows], x[columns]], axis=1)

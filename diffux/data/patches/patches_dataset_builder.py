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
TILE = 48  # side of the squares that are held out
STRIDE = 2  # distance of neighbouring candidate patches
FLAT = 3.0  # a patch whose standard deviation is lower shows nothing


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """`size` is the side of the patches in pixels."""

    size: int = 16


class Builder(tfds.core.GeneratorBasedBuilder):
    """10,000 train and 2,000 test patches of 16x16x3 or 32x32x3; the label is the photograph, in the order above.

    Every fifth square of 48x48 pixels of a photograph is held out: test patches lie inside those, train patches
    touch none. Patches of one split overlap one another.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS reads a class attribute)
        Config(name="16", size=16, description="patches of 16x16 pixels"),
        Config(name="32", size=32, description="patches of 32x32 pixels"),
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
        size = self.builder_config.size
        for label, name in enumerate(PHOTOGRAPHS):
            image = photograph(name)
            for y, x in corners(image, size, split):
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


def corners(image: np.ndarray, size: int, split: str) -> np.ndarray:
    """(n, 2) upper left corners of the patches of a split, evenly taken from all that are allowed and not flat."""
    y = np.arange(0, image.shape[0] - size + 1, STRIDE)
    x = np.arange(0, image.shape[1] - size + 1, STRIDE)

    def window_mean(values):  # by differences of a summed-area table
        table = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        low_y, low_x, high_y, high_x = y[:, None], x[None, :], y[:, None] + size, x[None, :] + size
        return (table[high_y, high_x] - table[high_y, low_x] - table[low_y, high_x] + table[low_y, low_x]) / size**2

    grey = image.astype(np.float64).mean(-1)
    structured = window_mean(grey**2) - window_mean(grey) ** 2 >= FLAT**2
    share = window_mean(held_out(*grey.shape))
    inside = share > 1 - 1e-9 if split == "test" else share < 1e-9
    rows, columns = np.nonzero(inside & structured)
    chosen = np.linspace(0, len(rows) - 1, COUNTS[split]).astype(int)
    return np.stack([y[rows[chosen]], x[columns[chosen]]], axis=1)

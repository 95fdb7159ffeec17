"""Handwritten digits that need no network: the 1,797 images of 8x8 pixels inside scikit-learn."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

from diffux.data.images import encode


class Builder(tfds.core.GeneratorBasedBuilder):
    """1,437 train and 360 test images of 8x8x1, labels 0..9; pixel k in 0..16 is stored as round(k * 255 / 16).

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="The handwritten digits of scikit-learn: pixel k in 0..16 is stored as round(k * 255 / 16).",
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train"), "test": self._generate_examples("test")}

    def _generate_examples(self, split):
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        for i in indices(digits.target, split):
            # TFDS would encode an array through TensorFlow, but takes the bytes of a PNG as they are
            yield int(i), {"image": encode(images[i]), "label": int(digits.target[i])}


def indices(labels: np.ndarray, split: str) -> np.ndarray:
    """Which examples belong to a split: sorted by class, every fifth is test, so each class is split 4 : 1."""
    by_class = np.argsort(labels, kind="stable")
    held_out = np.arange(len(labels)) % 5 == 0
    return by_class[held_out if split == "test" else ~held_out]

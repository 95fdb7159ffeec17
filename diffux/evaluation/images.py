"""Images: the Frechet distance, the distance to the training split, and of classes the recognisable share and the balance.

Of data with classes a small classifier, trained on them once and kept in the cache, is the judge; of others a random network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from diffux.errors import EvaluationError
from diffux.evaluation.controls import matched_gaussian, uniform_noise
from diffux.evaluation.figure import Figure, Real, examples_of, in_random_order, share
from diffux.evaluation.frechet import feature_distance, moments
from diffux.evaluation.judges import judge
from diffux.evaluation.neighbours import nearest_distances

SAMPLES = 512  # by default
CONFIDENT = 0.9
ROWS = {"gaussian": "Gaussian of the same pixels", "noise": "uniform noise", "blurred": "held-out, blurred"}
BLUR = 1.0  # pixels


def sets(samples: np.ndarray, real: Real, controls: bool, seed: int) -> dict[str, np.ndarray]:
    """The samples, the held-out images, and images that are surely wrong, as many as there are samples, or as are held out and
    blurred; all in 8 bits. Raises EvaluationError for a single held-out image."""
    found = {"generated": samples, "held_out": real.values("test")}
    if len(found["held_out"]) < 2:
        raise EvaluationError(f"samples are compared with at least 2 held-out images, and {real.test.name} has "
                              f"{len(found['held_out'])}: data.held_out says how many")  # fmt: skip
    if controls:
        n = len(samples)
        wrong = {"gaussian": matched_gaussian(real.values("train"), n, seed), "noise": uniform_noise(samples.shape[1:], n, seed),
                 "blurred": gaussian_filter(found["held_out"], (0, BLUR, BLUR, 0))}  # fmt: skip
        for name, values in wrong.items():
            found[name] = values if real.through is None else real.through(np.round(values * 255).astype(np.uint8))
    return {name: eight_bit(values) for name, values in found.items()}


def evaluate(sets: Mapping[str, np.ndarray], real: Real) -> Iterator[Figure]:
    """The figures of images (N, H, W, C) in [0, 1].

    - recognisable: the share to which the judge gives one class at least 0.9; of a judge that knows classes, as is `classes`.
    - frechet: the squared distance of its features to those of the training split; since it falls as the count grows, also of the
      first so many, the smallest count of all rows.
    - classes: the share of each class, by largest probability, and the smallest and the largest of them.
    - nearest_train: the median L2 distance to the training split in [-1, 1] pixels; 0 is a copy.
    """
    judged = judge(real.source, real.say, real.judge, real.name)
    train, common, right = eight_bit(real.values("train")), min(map(len, sets.values())), None
    against = moments(judged(train)[1])
    for row, images in sets.items():
        probabilities, features = judged(images)
        if row == "held_out" and judged.label in real.test.fields:
            labels = examples_of(real.test)[judged.label][in_random_order(images)]
            right = float(np.mean(probabilities.argmax(1) == labels))
        if probabilities is not None:
            yield share(row, "recognisable", np.mean(probabilities.max(1) >= CONFIDENT))
        for name, some in (("frechet", features), ("frechet_at_common_count", features[:common])):
            distance = feature_distance(moments(some), against)
            yield Figure(row, name, distance, f"{distance:.2f}")
        if probabilities is not None:
            shares = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) / len(images)
            yield Figure(row, "smallest_class", float(shares.min()))
            yield Figure(row, "largest_class", float(shares.max()))
            yield Figure(row, "classes", shares.tolist(), f"{shares.min():.1%} - {shares.max():.1%}")
        nearest = float(np.median(2 * nearest_distances(images, train)))
        yield Figure(row, "nearest_train", nearest, f"{nearest:.2f}")
    yield Figure("", "features", judged.name, f"Features: {judged.name}{'.' if right is None else ','}")
    if right is not None:
        yield Figure("", "held_out_accuracy", right, f"{right:.1%} right on held-out data.")
    if judged.label is not None:
        yield Figure("", "recognisable_at", CONFIDENT, f"Recognisable: it gives one class at least {CONFIDENT:.0%}.")
    split = f"the {len(train):,} images of the {real.source.split} split"
    yield Figure("", "reference", len(train), f"Frechet: squared distance of its features to those of {split}.")
    yield Figure("", "common_count", common, f"It falls as the count grows: beside it that of the first {common:,} of each row.")
    yield Figure("", "preprocessing", "8-bit pixels; nearest neighbours by L2 in [-1, 1] pixels",
                 "Nearest train: median L2 distance to the nearest train image in [-1, 1] pixels; 0 is a copy.")  # fmt: skip


def eight_bit(images) -> np.ndarray:
    """Images in [0, 1] rounded to multiples of 1/255, as a PNG keeps them; what lies outside is clipped."""
    return np.round(np.clip(images, 0, 1) * np.float32(255)) / np.float32(255)

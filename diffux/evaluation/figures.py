"""The figures of a set of samples: recognisable share, Frechet distance, class balance, distance to the train split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffux import data
from diffux.errors import EvaluationError
from diffux.evaluation.controls import matched_gaussian, uniform_noise
from diffux.evaluation.frechet import Moments, feature_distance, moments
from diffux.evaluation.judges import Judge, judge
from diffux.evaluation.neighbours import nearest_distances
from diffux.evaluation.recipes import canonical

SAMPLES = 512  # by default
CONFIDENT = 0.9


class Reference(NamedTuple):
    """What samples are compared with: images in [0, 1] of both splits, and the train split's feature moments."""

    judge: Judge
    train: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    moments: Moments


def reference(
    dataset: str,
    say: Callable[[str], None] = lambda message: None,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Reference:
    """The reference of a data set that has a judge; the held-out images come in a fixed random order.

    With `through`, uint8 images -> images in [0, 1], all of them are as a codec keeps them (see `evaluate`).

    Raises:
        EvaluationError: the data set has no judge.
    """
    trained = judge(dataset, say)
    test = data.arrays(data.load(trained.dataset, split="test"))
    order = in_random_order(test["image"])
    images, held_out = (real(dataset, split, through) for split in ("train", "test"))
    return Reference(trained, images, held_out, test["label"][order], moments(trained(images)[1]))


def in_random_order(values) -> np.ndarray:
    """Their indices in a random order that is always the same: the first few are then a sample of all."""
    return np.random.default_rng(0).permutation(len(values))


def real(dataset: str, split: str, through: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """The images of a split in [0, 1], held-out ones in a fixed random order, as a codec keeps them where `through` is given."""
    images = data.arrays(data.load(canonical(dataset), split=split))["image"]
    images = images if split == "train" else images[in_random_order(images)]
    return images / np.float32(255) if through is None else eight_bit(through(images))


def evaluate(
    images,
    dataset: str = "digits",
    *,
    controls: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """The figures of `images` (N, H, W, C) in [0, 1] as samples of `dataset`, and those of real and of wrong images.

    Images are rounded to 8 bits first, as a file would. The result is ready for JSON: what was compared with what, and
    `rows` named "generated", "held_out", and with `controls` "gaussian" and "noise" (as many as there are samples),
    each as `row` gives it. A Frechet distance depends on the count, so every row has a second one at `common_count`,
    the smallest count of all rows. A model of black and white digits is to be compared with black and white ones:
    `through`, uint8 images -> images in [0, 1], is applied to all images but the samples.

    Raises:
        EvaluationError: no judge for the data set, images of another shape or range, or fewer than two.

    Example:
        >>> rows = evaluate(images, "digits")["rows"]                      # doctest: +SKIP
        >>> rows["generated"]["frechet"], rows["held_out"]["frechet"]      # doctest: +SKIP
    """
    dataset = canonical(dataset)
    images = check(images, dataset)
    against = reference(dataset, say, through)
    sets = {"generated": images, "held_out": against.held_out}
    if controls:
        n = len(images)
        wrong = {"gaussian": matched_gaussian(against.train, n, seed), "noise": uniform_noise(images.shape[1:], n, seed)}
        for name, values in wrong.items():
            sets[name] = values if through is None else through(np.round(values * 255).astype(np.uint8))
    common = min(map(len, sets.values()))
    accuracy = np.mean(against.judge(against.held_out)[0].argmax(1) == against.held_out_labels)
    return {
        "dataset": dataset,
        "features": against.judge.name,
        "reference": {"split": "train", "count": len(against.train)},
        "held_out_split": "test",
        "held_out_accuracy": float(accuracy),
        "preprocessing": "8-bit pixels; nearest neighbours by L2 in [-1, 1] pixels",
        "recognisable_at": CONFIDENT,
        "common_count": common,
        "rows": {name: row(eight_bit(values), against, common) for name, values in sets.items()},
    }


def row(images: np.ndarray, against: Reference, common_count: int) -> dict[str, Any]:
    """The figures of one set of images (N, H, W, C) in [0, 1].

    count; recognisable: the share whose largest probability is at least 0.9; frechet, and frechet_at_common_count of the
    first so many; classes: the share of each, by largest probability, with smallest_class and largest_class;
    nearest_train: the median L2 distance to the train split in [-1, 1] pixels.
    """
    probabilities, features = against.judge(images)
    shares = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) / len(images)
    return {
        "count": len(images),
        "recognisable": float(np.mean(probabilities.max(1) >= CONFIDENT)),
        "frechet": feature_distance(moments(features), against.moments),
        "frechet_at_common_count": feature_distance(moments(features[:common_count]), against.moments),
        "smallest_class": float(shares.min()),
        "largest_class": float(shares.max()),
        "classes": shares.tolist(),
        "nearest_train": float(np.median(2 * nearest_distances(images, against.train))),
    }


def eight_bit(images) -> np.ndarray:
    """Images in [0, 1] rounded to multiples of 1/255, as a PNG keeps them; what lies outside is clipped."""
    return np.round(np.clip(images, 0, 1) * np.float32(255)) / np.float32(255)


def check(images, dataset: str) -> np.ndarray:
    """The images as float32 (N, H, W, C), or an EvaluationError that says what came and what would fit."""
    images, shape = np.asarray(images), data.load(canonical(dataset), split="train").shape
    wanted = f"{dataset} is evaluated on images (N, {', '.join(map(str, shape))}) of floats in [0, 1]"
    if images.ndim != 4 or images.shape[1:] != tuple(shape):
        raise EvaluationError(f"{wanted}, got the shape {images.shape}")
    if not np.issubdtype(images.dtype, np.floating):
        raise EvaluationError(f"{wanted}, got {images.dtype}; divide 8-bit images by 255")
    if len(images) < 2:
        raise EvaluationError(f"an evaluation needs at least 2 images, got {len(images)}")
    if not np.isfinite(images).all():
        raise EvaluationError(f"{wanted}, got some that are infinite or not a number")
    if images.min() < -0.01 or images.max() > 1.01:
        raise EvaluationError(f"{wanted}, got values from {images.min():.3g} to {images.max():.3g}")
    return images.astype(np.float32)

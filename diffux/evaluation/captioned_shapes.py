"""What single shapes in pictures are, by rule: their colour, shape, size, place and ground, with which samples are judged.

A picture of captioned_shapes with one object is asked for by its caption or labels; what came is read off it here, without a
network: `attributes(samples)["colour"] == labels["colour"]` is the share of samples of the right colour.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from diffux.data.captioned_shapes import scenes
from diffux.evaluation.figure import in_floats

SEEN = 0.2
"""How much the strongest pixel differs from the ground in some channel, of 1, where there is an object at all."""
OTHER = 0.3
"""How far a pixel is from the ground in all channels together where it is none of it."""


def attributes(images) -> dict[str, np.ndarray]:
    """The classes (N,) of the one object in each picture (N, H, H, 3), uint8 or floats in [0, 1], as the labels of
    captioned_shapes number them, and how well it is that.

    The ground is the median of the border, and the mean of what differs most from it is called by the nearest colour. How far a
    pixel is from the ground to that colour says what share of it is covered. The largest connected part of these has the area and
    the centre of mass of one instance of each shape, and the shape is that which overlaps most.

    - shape, colour, size, position, background: numbers of classes; -1 where there is nothing but the ground (but for background).
    - agreement: the overlap of that part with the shape, sum min(a, b) / sum max(a, b), times the part's share of all that is not
      ground. Of drawn scenes of 32x32 pixels it is above 0.85 where there is one object, and below where there are several.

    Raises ValueError for images that are not square and coloured, and for numbers that are not finite.

    Example:
        >>> image, _ = scenes.draw(scenes.scene("train", 8, objects=1), 32)
        >>> found = attributes(image[None])
        >>> scenes.SHAPES[found["shape"][0]] == scenes.labels(scenes.scene("train", 8, objects=1))["shape"]
        True
    """
    images = in_floats(np.asarray(images)).astype(np.float64)
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[-1] != 3:
        raise ValueError(f"attributes are those of square colour pictures (N, H, H, 3), got {images.shape}")
    if wrong := np.sum(~np.isfinite(images).all((1, 2, 3))):
        raise ValueError(f"{wrong} of {len(images)} pictures have numbers that are not finite")
    rows = [_attributes(image) for image in images]
    names = ("shape", "colour", "size", "position", "background", "agreement")
    return {name: np.array([row[name] for row in rows], np.float64 if name == "agreement" else np.int64) for name in names}


def _attributes(image: np.ndarray) -> dict[str, float]:
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = np.median(border, axis=0)
    found = {"shape": -1, "colour": -1, "size": -1, "position": -1, "agreement": 0.0,
             "background": _nearest(ground, scenes.BACKGROUNDS)}  # fmt: skip
    apart = abs(image - ground).max(-1)
    if apart.max() < SEEN:
        return found
    colour = image[apart > 0.7 * apart.max()].mean(0)
    covered = np.clip((image - ground) @ (colour - ground) / np.sum((colour - ground) ** 2), 0, 1)
    parts, count = ndimage.label(covered > 0.5)
    largest = parts == 1 + np.argmax(ndimage.sum_labels(parts > 0, parts, range(1, count + 1)))
    near = ndimage.binary_dilation(largest, np.ones((3, 3)))  # an edge is a pixel wide
    part = covered * near
    other = np.linalg.norm(image - ground, axis=-1) > OTHER
    alone = np.sum(other & near) / max(np.sum(other), 1)
    y, x = (_centre(part.sum(axis)) for axis in (1, 0))
    overlaps, radii = [], []
    for shape, (_, area, *_) in scenes.FORMS.items():
        radii.append(float(np.sqrt(part.mean() / area)))
        ideal = scenes.cover(scenes.Thing("", shape, "", x, y, radii[-1]), len(image))
        overlaps.append(np.minimum(part, ideal).sum() / np.maximum(part, ideal).sum())
    best = int(np.argmax(overlaps))
    small, large = scenes.SIZES.values()
    thing = scenes.Thing("", scenes.SHAPES[best], "", x, y, radii[best])
    return found | {
        "shape": best,
        "colour": _nearest(colour, scenes.COLOURS),
        "size": int(radii[best] > (small[1] + large[0]) / 2),
        "position": scenes.PLACES.index(scenes.place(thing)),
        "agreement": float(overlaps[best] * alone),
    }


def _nearest(colour: np.ndarray, named: dict[str, tuple[int, int, int]]) -> int:
    return int(np.argmin(np.sum((np.array(list(named.values())) / 255 - colour) ** 2, axis=1)))


def _centre(sums: np.ndarray) -> float:
    """The centre of mass along an axis of length 1."""
    return float(sums @ (np.arange(len(sums)) + 0.5) / sums.sum() / len(sums))

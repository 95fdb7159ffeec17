"""What shapes in pictures are, by rule: their colours, shapes, sizes, places and ground, with which samples are judged.

A picture of captioned_shapes is asked for by its caption or labels; what came is read off it here, without a network: of one object
`attributes(samples)["colour"] == labels["colour"]` is the share of samples of the right colour, and `seen(samples)` are the scenes
of several.
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
    images = _checked(images)
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
    overlap, thing, _ = _shaped(part, "")
    return found | {
        "shape": scenes.SHAPES.index(thing.shape),
        "colour": _nearest(colour, scenes.COLOURS),
        "size": tuple(scenes.SIZES).index(thing.size),
        "position": scenes.PLACES.index(scenes.place(thing)),
        "agreement": float(overlap * alone),
    }


EDGE = 5.0
"""How much an object overlaps with the shape that it is called is at least 1 - EDGE / H in pictures of H pixels, 0.84 in such of
32: there it is above 0.95 in drawn ones, and below 0.7 where these are blurred by two pixels."""
LEFT = 0.07
"""The root of the mean square of what a picture has besides the scene that it is called, in [0, 1], at most: of drawn ones it is
below 0.02, of such with noise of a standard deviation of 0.1 above 0.08."""


def seen(images) -> list[scenes.Scene | None]:
    """The scene that each picture (N, H, H, 3), uint8 or floats in [0, 1], shows, its objects in no order; None where it is none.

    The ground is the median of the border. A pixel is the ground and a share of one colour, that which explains it best; connected
    pixels of one colour, of which more than half is covered, are an object, unless they are much fewer than the smallest one has.
    Its shape is that which overlaps most. A picture is none of a scene where an object overlaps with every shape by less than
    1 - EDGE / H, as blurred, merged and misshapen ones do, or where the scene, drawn again, leaves more than `LEFT`, as of noise.

    Raises ValueError for images that are not square and coloured, and for numbers that are not finite.

    Example:
        >>> there = scenes.scene("train", 4)
        >>> found = seen(scenes.draw(there, 32)[0][None])[0]
        >>> sorted(thing.kind for thing in found.things) == sorted(thing.kind for thing in there.things)
        True
    """
    return [_seen(image) for image in _checked(images)]


def _seen(image: np.ndarray) -> scenes.Scene | None:
    side, things = len(image), []
    ground = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0)
    towards = np.array(list(scenes.COLOURS.values())) / 255 - ground
    shares = np.clip((image - ground) @ towards.T / np.sum(towards**2, 1), 0, 1)
    colour = np.argmin(np.linalg.norm(image[:, :, None] - ground - shares[..., None] * towards, axis=-1), -1)
    solid, painted = np.take_along_axis(shares, colour[..., None], -1)[..., 0] > 0.5, np.broadcast_to(ground, image.shape)
    for number, name in enumerate(scenes.COLOURS):
        parts, count = ndimage.label(solid & (colour == number))
        for own in (parts == one for one in range(1, count + 1)):
            near = ndimage.binary_dilation(own, np.ones((3, 3))) & ~(solid & ~own)  # an edge is a pixel wide
            part = shares[..., number] * near
            if part.sum() < _FEWEST * side**2:
                continue
            overlap, thing, ideal = _shaped(part, name)
            if overlap < 1 - EDGE / side:
                return None
            things.append(thing)
            painted = painted + ideal[..., None] * towards[number]
    if np.sqrt(np.mean((image - painted) ** 2)) > LEFT:
        return None
    return scenes.Scene(tuple(scenes.BACKGROUNDS)[_nearest(ground, scenes.BACKGROUNDS)], tuple(things))


_FEWEST = 0.25 * np.pi * min(scenes.SIZES["small"]) ** 2  # of the picture: a quarter of the smallest object


def _shaped(part: np.ndarray, colour: str) -> tuple[float, scenes.Thing, np.ndarray]:
    """(the overlap, the object, its ideal cover) of the shape that a part (H, H), the covered share of each pixel, is most like: of
    its area, with its centre of mass."""
    y, x = (_centre(part.sum(axis)) for axis in (1, 0))
    found = []
    for shape, (_, area, *_) in scenes.FORMS.items():
        radius = float(np.sqrt(part.mean() / area))
        small, large = scenes.SIZES.values()
        size = "large" if radius > (small[1] + large[0]) / 2 else "small"
        thing = scenes.Thing(colour, shape, size, x, y, radius)
        ideal = scenes.cover(thing, len(part))
        found.append((float(np.minimum(part, ideal).sum() / np.maximum(part, ideal).sum()), thing, ideal))
    return max(found, key=lambda one: one[0])


def _checked(images) -> np.ndarray:
    images = in_floats(np.asarray(images)).astype(np.float64)
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[-1] != 3:
        raise ValueError(f"scenes are read off square colour pictures (N, H, H, 3), got {images.shape}")
    if wrong := np.sum(~np.isfinite(images).all((1, 2, 3))):
        raise ValueError(f"{wrong} of {len(images)} pictures have numbers that are not finite")
    return images


def _nearest(colour: np.ndarray, named: dict[str, tuple[int, int, int]]) -> int:
    return int(np.argmin(np.sum((np.array(list(named.values())) / 255 - colour) ** 2, axis=1)))


def _centre(sums: np.ndarray) -> float:
    """The centre of mass along an axis of length 1."""
    return float(sums @ (np.arange(len(sums)) + 0.5) / sums.sum() / len(sums))

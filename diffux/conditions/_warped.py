"""Images that are augmented in training, with labels that tell the network how, so that nothing of it leaks into the samples.

The part changes the image and says how in one place, before other parts see the image: a smaller one that `made` makes of it is
turned as well, and codecs, held-out losses and requests for samples know nothing of it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.conditions.parts import Part

_OCTAVES = 0.2  # of scale and stretch, for a label of 1
_MOVE = 1 / 8  # of the side


@struct.dataclass
class Warped(Part):
    """fields[name] after a random transformation, and "augment", its labels."""

    name: str = struct.field(pytree_node=False)
    share: Any
    mirrored: Any
    asks = ()
    makes = ("augment",)
    width = 9

    def __call__(self, keys, fields, train):
        if not train or self.name not in fields:
            return fields
        labels = drawn(keys, fields[self.name].shape[0], self.share, self.mirrored)
        return fields | {self.name: warp(fields[self.name], labels), "augment": labels}


def warped(name: str = "image", share: float = 0.12, mirrored: float = 0.5) -> Warped:
    """The field `name` mirrored, scaled, turned, stretched and moved in training, each with the probability `share`, and the 9
    numbers that say so as the condition "augment" (Karras et al., 2022, app. F.2 and table 6): 0 for what was not done.

    - share: of images that are scaled by 2^(0.2 n), n ~ N(0, 1), of those that are turned by any angle, of those that are
      stretched by 2^(0.2 n) along one axis and shrunk as much across it, and of those that are moved by an eighth of their sides
      times N(0, 1); half as many are reflected top to bottom.
    - mirrored: the share of images that are reflected left to right, the paper's half whatever `share` is.

    Without labels, as in samples, nothing was done: what the network learns there it learns of images as they are. Pixels are read
    by cubic interpolation, those beyond the edges by reflection; the authors double the image by a wavelet before they interpolate,
    and halve it afterwards, so that here a smaller image has a little more aliasing. A move by whole pixels and a reflection are
    exact. Raises ValueError for what is no probability.

    Example:
        >>> part, x = warped(share=0.0, mirrored=1.0), jnp.array([[0.0, 0.5, 1.0]]).reshape(1, 1, 3, 1)
        >>> fields = part(jax.random.key(0), {"image": x}, True)
        >>> fields["image"].ravel().tolist(), fields["augment"].tolist()
        ([1.0, 0.5, 0.0], [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    """
    for what, value in (("share", share), ("mirrored", mirrored)):
        if not 0 <= value <= 1:
            raise ValueError(f"{what} of warped is a probability 0 <= p <= 1, got {value}")
    return Warped(name, share, mirrored)


def drawn(keys, n: int, share: Any, mirrored: Any) -> Any:
    """Labels (n, 9) of random transformations, as `warp` reads them."""
    keys = rng.fold_in(keys, 0)  # 1 and more make the keys of the parts after the first
    u, normal = rng.uniform(keys, (n, 9)).T, rng.noise(rng.fold_in(keys, 1), (n, 4)).T
    scaled, turned, stretched, moved = u[:4] < share
    angle, axis, amount = 2 * jnp.pi * u[4], 2 * jnp.pi * u[5], normal[1]
    # Half of the stretches are along a side. The authors' label of these is (amount, 0), and that of the others as here, but a
    # shrinking of theirs has the label of the stretch along the same axis: here it is told by the label of the other side.
    along = (jnp.maximum(amount, 0), jnp.maximum(-amount, 0))
    stretch = jnp.where(u[6] < 0.5, jnp.stack([amount * jnp.cos(axis), amount * jnp.sin(axis)]), jnp.stack(along))
    labels = [
        u[7] < mirrored,
        u[8] < share / 2,
        jnp.where(scaled, normal[0], 0),
        *jnp.where(turned, jnp.stack([jnp.cos(angle) - 1, jnp.sin(angle)]), 0),
        *jnp.where(stretched, stretch, 0),
        *jnp.where(moved, normal[2:], 0),
    ]
    return jnp.stack([label.astype(u.dtype) for label in labels], 1)


def warp(images: Any, labels: Any) -> Any:
    """Images (B, H, W, C) transformed as `labels` (B, 9) say, as floats: 8-bit ones are divided by 255.

    The labels are: reflected left to right, reflected top to bottom, n of the scale, cos - 1 and sin of the angle, the axis of the
    stretch times its n, and the two n of the move, to the right and down. The image is reflected, scaled, turned, stretched and
    moved, in this order. Raises ValueError for what is no image.
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"warped goes with images (B, H, W, C), got the shape {images.shape}")
    images = images / 255 if images.dtype == jnp.uint8 else images
    x, y = _sources(labels, *images.shape[1:3])
    return jax.vmap(_read)(images, x, y)


def _sources(labels, height: int, width: int):
    """(x, y), each (B, H, W): where every pixel of the transformed images is read from. Exact where nothing is done."""
    mirrored, upset, scale, cos, sin, along_x, along_y, right, down = labels.T[:, :, None, None]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x = jnp.arange(width) - middle_x - width * _MOVE * right
    y = (jnp.arange(height) - middle_y)[:, None] - height * _MOVE * down

    square = along_x**2 + along_y**2
    size = jnp.log(2.0) * _OCTAVES * jnp.sqrt(square)
    shear = jnp.sinh(size) / jnp.where(square > 0, square, 1)  # by 1 / s along the axis, s across it
    even, odd = shear * (along_x**2 - along_y**2), 2 * shear * along_x * along_y
    x, y = (jnp.cosh(size) - even) * x + odd * y, odd * x + (jnp.cosh(size) + even) * y

    x, y = (cos + 1) * x - sin * y, sin * x + (cos + 1) * y
    x, y = x * 2 ** (-_OCTAVES * scale), y * 2 ** (-_OCTAVES * scale)
    return jnp.where(mirrored > 0, -x, x) + middle_x, jnp.where(upset > 0, -y, y) + middle_y


def _read(image, x, y):
    """The image (H, W, C) at the places (x, y), each (H', W'), by Keys' cubic, reflected about its first and last pixels."""
    (height, width, _), first_x, first_y = image.shape, jnp.floor(x), jnp.floor(y)
    across = list(zip(_cubic(x - first_x), _reflected(first_x, width), strict=True))
    return sum(
        (weight_y * weight_x)[..., None] * image[row, column]
        for weight_y, row in zip(_cubic(y - first_y), _reflected(first_y, height), strict=True)
        for weight_x, column in across
    )


def _cubic(f):
    """The weights of the four pixels around a place `f` in [0, 1) after the second of them (Keys, 1981)."""
    return ((1 - f / 2) * f - 0.5) * f, (1.5 * f - 2.5) * f**2 + 1, ((2 - 1.5 * f) * f + 0.5) * f, (f - 1) * f**2 / 2


def _reflected(first, side: int):
    """The indices of the pixels `first` - 1 .. `first` + 2 of a side, those beyond it reflected."""
    indices = (first.astype(jnp.int32) + step for step in (-1, 0, 1, 2))
    return [side - 1 - jnp.abs(side - 1 - index % max(2 * side - 2, 1)) for index in indices]

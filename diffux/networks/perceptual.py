"""Perceptual distance of pairs of images: LPIPS, with its authors' weights (`pretrained.lpips`), and the same form on a random
network.

Both look at what the layers l of a network make of two images, with channels c of unit norm at every place:

    d(a, b) = sum_l mean over places of sum_c w_lc (a_lc - b_lc)^2          (Zhang et al., 2018, eq. 1)

LPIPS is a network trained on photographs with weights w fitted to what people find alike. Without them w is 1 and the network
random, which is another measure and has another name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux.errors import EvaluationError
from diffux.networks import random_features as random

Array = Any
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of version 0.1, for images in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network of torchvision up to its last layer that is compared.

    - slices: the numbers of the convolutions, after the last of which in each slice channels are compared.
    - widths: their channels. sides: of the kernels; first: the stride and the padding of the first one, others keep the sides.
    - pooled: the slices that begin with a maximum over `window` x `window` pixels in steps of 2, cut off at the border.
    - least: the smallest side of an image of which anything is left.
    """

    slices: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]
    sides: tuple[int, ...]
    first: tuple[int, int]
    pooled: tuple[int, ...]
    window: int
    least: int

    @property
    def shapes(self) -> dict[int, tuple[int, ...]]:
        """{number of a convolution: its kernel's shape, as torch has it}."""
        shapes, before = {}, 3
        for numbers, width, side in zip(self.slices, self.widths, self.sides, strict=True):
            for number in numbers:
                shapes[number] = (width, before, side, side)
                before = width
        return shapes


BACKBONES = {
    "AlexNet": Backbone(slices=((0,), (3,), (6,), (8,), (10,)), widths=(64, 192, 384, 256, 256), sides=(11, 5, 3, 3, 3),
                        first=(4, 2), pooled=(1, 2), window=3, least=31),
    "VGG-16": Backbone(slices=((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), widths=(64, 128, 256, 512, 512),
                       sides=(3, 3, 3, 3, 3), first=(1, 1), pooled=(1, 2, 3, 4), window=2, least=16),
}  # fmt: skip


@struct.dataclass
class LPIPS:
    """LPIPS on one backbone: its convolutions by number, and the weights of the channels of every slice."""

    backbone: str = struct.field(pytree_node=False)
    identity: str = struct.field(pytree_node=False)
    convolutions: Mapping[int, tuple[Array, Array]]
    weights: tuple[Array, ...]
    key: ClassVar[str] = "lpips"

    @property
    def name(self) -> str:
        """What a figure made with it must be told with, as "LPIPS (AlexNet, weights 6c1e03a2)"."""
        return f"LPIPS ({self.backbone}, weights {self.identity})"

    def check(self, shape: Sequence[int]) -> None:
        """Raise EvaluationError for images (H, W, C) that are too small, or neither RGB nor grey."""
        least = BACKBONES[self.backbone].least
        if shape[-1] not in (1, 3) or min(shape[:2]) < least:
            raise EvaluationError(f"LPIPS on {self.backbone} is of RGB or grey images of at least {least}x{least} pixels, got "
                                  f"{'x'.join(map(str, shape))}")  # fmt: skip

    def __call__(self, images: Any, truth: Any) -> Array:
        images, truth = _pairs(images, truth)
        self.check(images.shape[1:])
        return _lpips(self, images, truth)

    def maps(self, x) -> list[Array]:
        """What is compared, (N, h, w, c) a slice, of RGB images (N, H, W, 3) in [-1, 1]."""
        backbone, found = BACKBONES[self.backbone], []
        x = (x - jnp.asarray(SHIFT, x.dtype)) / jnp.asarray(SCALE, x.dtype)
        for place, numbers in enumerate(backbone.slices):
            if place in backbone.pooled:
                window = (1, backbone.window, backbone.window, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
            for number in numbers:
                kernel, bias = self.convolutions[number]
                stride, margin = backbone.first if number == 0 else (1, kernel.shape[0] // 2)
                x = jax.lax.conv_general_dilated(
                    x, kernel, (stride, stride), [(margin, margin)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    precision=jax.lax.Precision.HIGHEST,
                )  # fmt: skip
                x = jax.nn.relu(x + bias)
            found.append(x)
        return found


@struct.dataclass
class RandomFeatures:
    """The same form on the random network by which images without classes are judged, all channels weighing the same."""

    key: ClassVar[str] = "random_feature_distance"
    name: ClassVar[str] = "random-feature distance"

    def check(self, shape: Sequence[int]) -> None:
        """All images will do."""

    def __call__(self, images: Any, truth: Any) -> Array:
        return _random(*_pairs(images, truth))


def random_features() -> RandomFeatures:
    """The random-feature distance: images, truth (N, H, W, C) in [0, 1] -> (N,), 0 of equal ones.

    It is no LPIPS, and its numbers are not comparable with those: the network is that of `judges.random`, whose weights are random
    and always the same. It sees blur, noise and texture, and knows nothing of what people find alike.

    Example:
        >>> x = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
        >>> near, far = (random_features()(jnp.clip(x + step, 0, 1), x)[0] for step in (0.02, 0.2))
        >>> bool(0 < near < far)
        True
    """
    return RandomFeatures()


def _pairs(images: Any, truth: Any) -> tuple[Array, Array]:
    images, truth = jnp.asarray(images, jnp.float32), jnp.asarray(truth, jnp.float32)
    if images.shape != truth.shape or images.ndim != 4:
        raise ValueError(f"pairs are images (N, H, W, C) of one shape, got {images.shape} and {truth.shape}")
    return images, truth


@jax.jit
def _lpips(part, images, truth):
    x = 2 * jnp.concatenate([images, truth]) - 1
    return _distance(part.maps(jnp.broadcast_to(x, (*x.shape[:3], 3))), part.weights)


@jax.jit
def _random(images, truth):
    maps = random.maps(jnp.concatenate([images, truth]))
    return _distance(maps, [jnp.ones(x.shape[-1]) for x in maps])


def _distance(maps, weights) -> Array:
    """(N,) of what layers make of N images and, after them, of N others."""
    total = 0.0
    for x, weight in zip(maps, weights, strict=True):
        norm = jnp.sqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-30))  # a root has no slope at 0
        a, b = jnp.split(x / (norm + 1e-10), 2)
        total += jnp.mean(jnp.sum(weight * (a - b) ** 2, -1), (1, 2))
    return total

"""Features of images without training: a convolutional network with random weights, always the same ones.

Where there are no classes to train a classifier on, and networks trained on photographs know nothing of the data, the features of a
randomly initialised network serve (Naeem et al., 2020, who take a random VGG16).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
FINE, COARSE = 32, 64  # features of what is near, averaged over the image, and of what lies where in it


@functools.cache
def _weights(shape: tuple[int, ...]) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """(kernels and biases of 3x3 convolutions, all but the first of stride 2, down to 4 pixels; the last matrix)."""
    drawn, (height, width, channels) = np.random.default_rng(0), shape
    depth = max(2, math.ceil(math.log2(max(height, width) / 4)))
    layers = []
    for wide in (min(FINE * 2**i, 128) for i in range(depth)):
        kernel = drawn.standard_normal((3, 3, channels, wide)) * math.sqrt(2 / (9 * channels))  # He et al., 2015
        layers.append((np.float32(kernel), np.float32(0.1 * drawn.standard_normal(wide))))
        channels = wide
    sides = [math.ceil(side / 2 ** (depth - 1)) for side in (height, width)]
    size = math.prod(sides) * channels
    return layers, np.float32(drawn.standard_normal((size, COARSE)) * math.sqrt(2 / size))


def features(images) -> Array:
    """Features (N, 96) of images in [0, 1], shape (N, H, W, C)."""
    layers, last = _weights(tuple(np.shape(images)[1:]))
    return _features(jnp.asarray(images, jnp.float32), layers, last)


@jax.jit
def _features(images, layers, last):
    maps = _maps(images, layers)
    return jnp.concatenate([maps[0].mean((1, 2)), maps[-1].reshape(len(images), -1) @ last], -1)


def maps(images) -> list[Array]:
    """The outputs (N, h, w, c) of every layer, after the nonlinearity, of images in [0, 1], shape (N, H, W, C)."""
    layers, _ = _weights(tuple(np.shape(images)[1:]))
    return _maps(jnp.asarray(images, jnp.float32), layers)


def _maps(images, layers):
    x, found = 2 * images - 1, []
    for kernel, bias in layers:
        stride = 2 if found else 1
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        found.append(x := jax.nn.relu(x + bias))
    return found

"""Resampling by a finite impulse response (FIR) filter, as in StyleGAN2: images that grow and shrink without aliasing.

Sides are doubled or halved with the filter along each axis in turn, every output phase as a weighted sum of shifted
inputs: no zeros are inserted to be multiplied, and no grouped convolution is needed. Beyond the border everything is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from diffux.networks.convolution import convolution

Array = Any
BINOMIAL = (1, 3, 3, 1)
"""StyleGAN2's filter, before it is brought to the sum 1."""


def upsample_2d(x: Array, kernel: Sequence[float] = BINOMIAL, border: int = 0) -> Array:
    """x (B, *d, C) with zeros between its positions, filtered: (B, *2d, C), a constant staying that constant inside
    (Karras et al., 2020, app. B; Zhang, 2019). `border` adds so many more outputs on every side.

    Example:
        >>> upsample_2d(jnp.ones((1, 3, 3, 1)))[0, 2, :, 0].tolist()
        [0.75, 1.0, 1.0, 1.0, 1.0, 0.75]
    """
    taps = [2 * tap for tap in _normalized(kernel)[::-1]]  # the gain 2 an axis makes up for the zeros
    before = (len(taps) - 2 + 1) // 2 + 1

    def along(x, axis):
        length = x.shape[axis]
        extra = -(-border // 2)  # whole pairs of outputs beyond the border
        phases = []
        for phase in (0, 1):
            places = [(tap, (phase + m - before) // 2) for m, tap in enumerate(taps) if (phase + m - before) % 2 == 0]
            phases.append(_weighted(x, axis, places, -extra, length + 2 * extra, 1))
        y = jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], 2 * (length + 2 * extra), *x.shape[axis + 1 :])
        return lax.slice_in_dim(y, 2 * extra - border, 2 * (length + extra) + border, axis=axis)

    return _each_axis(along, x)


def downsample_2d(x: Array, kernel: Sequence[float] = BINOMIAL) -> Array:
    """x (B, *2d, C), filtered, at every second position: (B, *d, C) (Karras et al., 2020, app. B; Zhang, 2019).

    Example:
        >>> downsample_2d(jnp.ones((1, 6, 6, 1)))[0, 1, :, 0].tolist()
        [0.875, 1.0, 0.875]
    """
    taps = _normalized(kernel)[::-1]
    before = (len(taps) - 2 + 1) // 2
    places = [(tap, m - before) for m, tap in enumerate(taps)]
    return _each_axis(lambda x, axis: _weighted(x, axis, places, 0, x.shape[axis] // 2, 2), x)


def conv_downsample_2d(x: Array, weight: Array, kernel: Sequence[float] = BINOMIAL) -> Array:
    """The filter, then a convolution with `weight` (k, k, I, O) at every second position: (B, *2d, I) -> (B, *d, O).

    The border is padded once, before both (Karras et al., 2020, code).
    """
    taps = _normalized(kernel)[::-1]
    total = len(taps) - 2 + weight.shape[0] - 1
    places = [(tap, m - (total + 1) // 2) for m, tap in enumerate(taps)]
    filtered = _each_axis(lambda x, axis: _weighted(x, axis, places, 0, x.shape[axis] + total + 1 - len(taps), 1), x)
    return convolution(filtered, weight, 2, "VALID")


def upsample_conv_2d(x: Array, weight: Array, kernel: Sequence[float] = BINOMIAL) -> Array:
    """`upsample_2d`, then a convolution with `weight` (k, k, I, O), k odd: (B, *d, I) -> (B, *2d, O).

    The filtered image is not cut at the border before the convolution sees it (Karras et al., 2020, code).
    """
    return convolution(upsample_2d(x, kernel, border=weight.shape[0] // 2), weight, 1, "VALID")


def _weighted(x, axis, places, start, count, stride):
    """sum_k tap_k x[start + offset_k + stride i], i = 0 .. count - 1, along one axis; zero outside of x."""
    first = min(0, start + min(offset for _, offset in places))
    last = max(x.shape[axis], start + max(offset for _, offset in places) + stride * (count - 1) + 1)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (-first, last - x.shape[axis])
    padded = jnp.pad(x, padding)
    parts = [
        tap * lax.slice_in_dim(padded, start + offset - first, start + offset - first + stride * (count - 1) + 1, stride, axis)
        for tap, offset in places
    ]
    return sum(parts[1:], parts[0])


def _each_axis(along: Callable[[Array, int], Array], x: Array) -> Array:
    for axis in range(1, x.ndim - 1):
        x = along(x, axis)
    return x


def _normalized(kernel: Sequence[float]) -> list[float]:
    taps = np.asarray(kernel, np.float64)
    if taps.ndim != 1 or len(taps) < 2 or taps.sum() == 0:
        raise ValueError(f"a resampling filter is a list of at least 2 numbers with a sum, got {list(kernel)}")
    return (taps / taps.sum()).tolist()

"""The numbers that bring latents to unit scale, measured of data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffux.codecs._latents import Latents


class Scale(NamedTuple):
    """The mean of each channel of some latents, the standard deviation about these, and of what is diffused now, `scaled`."""

    means: tuple[float, ...]
    std: float
    scaled: float


def latents_in(part: Any) -> list[Latents]:
    """The latents in a part or system."""
    return [node for node in jax.tree.leaves(part, is_leaf=_are_latents) if _are_latents(node)]


def measured(codec: Latents, key: Any, batches: Iterable[Any]) -> Scale:
    """The means and the standard deviation of the latents of batches of images (Rombach et al., 2022, app. G, take the first batch,
    and no means).

    Example:
        >>> from diffux.codecs import latents
        >>> from diffux.networks.autoencoder import ImageDecoder, ImageEncoder
        >>> from diffux.networks.initialize import initialize
        >>> from diffux.types import Net
        >>> x, encoder = np.zeros((2, 8, 8, 3)), ImageEncoder(widths=(4, 8), blocks=1, latent=2, groups=2)
        >>> codec = latents(Net(encoder, initialize(jax.random.key(0), encoder, x)), Net(ImageDecoder(), {}))
        >>> len(measured(codec, jax.random.key(1), [x]).means)
        2
    """
    plain = codec.replace(scale=1.0, shift=0.0)
    count, total, square = 0, 0.0, 0.0
    for i, images in enumerate(batches):
        z = np.asarray(_encoded(plain, jax.random.fold_in(key, i), images), np.float64)
        z = z.reshape(-1, z.shape[-1])
        count, total, square = count + len(z), total + z.sum(0), square + (z**2).sum(0)
    means = total / count
    std = float(np.sqrt(np.mean(square / count - means**2)))
    scaled = float(np.mean(np.asarray(codec.numbers[0]) * std))
    return Scale(tuple(means.tolist()), std, scaled)


def told(part: Any, scale: Any, shift: Any) -> Any:
    """A part or system whose latents have these numbers where they have none."""

    def known(node):
        if not _are_latents(node) or node.scale is not None:
            return node
        return node.replace(scale=scale, shift=jnp.asarray(shift, jnp.float32) if node.shift is None else node.shift)

    return jax.tree.map(known, part, is_leaf=_are_latents)


def _are_latents(node: Any) -> bool:
    return isinstance(node, Latents)


@jax.jit
def _encoded(codec, key, images):
    return codec.encode(key, images, {})

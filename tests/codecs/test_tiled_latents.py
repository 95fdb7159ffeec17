"""Large pictures into latents and back in tiles: what a network that sees little makes of the whole, a tile at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import codecs
from diffux.types import Net

SEEN = []


class Down(nn.Module):
    """Means of 4x4 pixels."""

    moments: bool = False
    widths = (1, 1, 1)

    def __call__(self, x):
        SEEN.append(x.shape[1:3])
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 4, 4, width // 4, 4, channels).mean((2, 4))


class Up(nn.Module):
    """Pixels from the means, each a little of its neighbours."""

    widths = (1, 1, 1)

    def __call__(self, z):
        SEEN.append(z.shape[1:3])
        x = jnp.repeat(jnp.repeat(z, 4, 1), 4, 2)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9


@pytest.mark.parametrize("sides", [(72, 100), (32, 64), (24, 100), (32, 32)])
def test_tiles_are_the_whole(sides):
    SEEN.clear()
    whole = codecs.latents(Net(Down(), {}), Net(Up(), {}), scale=2.0, shift=0.1, drawn=False)
    tiled = codecs.latents(Net(Down(), {}), Net(Up(), {}), scale=2.0, shift=0.1, drawn=False, tile=32)
    x = np.random.default_rng(0).random((2, *sides, 3)).astype(np.float32)
    z = jax.jit(lambda codec, x: codec.encode(None, x, {}))(tiled, x)
    images = jax.jit(lambda codec, z: codec.decode(z, {}))(tiled, z)
    assert max(map(max, SEEN)) <= 32
    np.testing.assert_allclose(z, whole.encode(None, x, {}), atol=1e-6)
    np.testing.assert_allclose(images, whole.decode(z, {}), atol=1e-6)


def test_a_tile_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a tile is a multiple of 16 pixels, got 24"):
        codecs.latents(Net(Down(), {}), Net(Up(), {}), tile=24)

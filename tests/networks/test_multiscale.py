"""The multi-scale network against its parts written with torch, and the temporal basis against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.initialize import initialize
from diffux.networks.multiscale import MultiScale, bumps

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
NETWORK = MultiScale(steps=20, scales=3, convolutions=(5, 4), dense=(6, 7), upper=(3, 4), basis=3)
X = RNG.normal(size=(2, 8, 4, 2)).astype(np.float32)


def parameters():
    shapes = initialize(jax.random.key(0), NETWORK, X, jnp.zeros(2))
    return jax.tree.map(lambda leaf: 0.3 * RNG.normal(size=leaf.shape).astype(np.float32), shapes)


def by_torch(p, x, noise):
    """The same network, channels first where it convolves."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    t = lambda a: torch.from_numpy(np.array(a))  # noqa: E731
    leaky = lambda a: F.leaky_relu(a, 0.05)  # noqa: E731
    dense = lambda name, a: a @ t(p[name]["kernel"]) + t(p[name]["bias"])  # noqa: E731
    h = t(x).permute(0, 3, 1, 2)
    for layer in ("conv_0", "conv_1"):
        total = 0
        for scale in range(3):
            weights = p[layer][f"scale_{scale}"]
            y = F.conv2d(F.avg_pool2d(h, 2**scale), t(weights["kernel"]).permute(3, 2, 0, 1),
                         t(weights["bias"]) if "bias" in weights else None, padding=1)  # fmt: skip
            total = total + F.interpolate(y, scale_factor=2**scale, mode="nearest")
        h = leaky(total)
    whole = t(x).reshape(len(x), -1)
    for layer in ("dense_0", "dense_1", "dense_out"):
        whole = leaky(dense(layer, whole))
    h = torch.cat([h.permute(0, 2, 3, 1), whole.reshape(*x.shape[:3], 2)], -1)
    h = leaky(dense("upper_1", leaky(dense("upper_0", h))))
    h = dense("readout", h).reshape(*x.shape[:3], 2 * x.shape[3], 3)
    out = torch.stack([h[b] @ t(basis(noise[b])) for b in range(len(x))])
    return out[..., : x.shape[3]].numpy(), out[..., x.shape[3] :].numpy()


def basis(index, steps=20, count=3):
    u, centres = np.linspace(-1, 1, steps)[index], np.linspace(-1, 1, count)
    g = np.exp(-((u - centres) ** 2) / (2 * ((centres[1] - centres[0]) / 2) ** 2))
    return (g / g.sum()).astype(np.float32)


@pytest.mark.full
def test_it_is_its_formula():
    p, noise = parameters(), [3, 17]
    got = NETWORK.apply({"params": p}, X, jnp.asarray(noise, jnp.float32))
    for ours, theirs in zip(got, by_torch(p, X, noise), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_bumps():
    got = bumps(jnp.arange(20.0), 20, 3)
    np.testing.assert_allclose(got, [basis(i) for i in range(20)], rtol=1e-4)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-6)


def test_it_begins_at_zero_and_at_one_half_for_bits():
    for bits, start in ((False, 0.0), (True, 0.5)):
        network = MultiScale(steps=20, convolutions=[4], dense=[4], upper=[4], variance=False, bits=bits)
        params = initialize(jax.random.key(0), network, X, jnp.zeros(2))
        np.testing.assert_array_equal(network.apply({"params": params}, X, 3), np.full_like(X, start))


def test_sides_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        NETWORK.init(jax.random.key(0), jnp.zeros((1, 6, 8, 1)), 0)

"""Super-resolution by conditioning on the enlarged image, with a loss of the pixels that are known: SR3 in small."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux import clocks, objectives, parameterizations, processes, schedules, weightings
from diffux.codecs import pixels
from diffux.conditions import given, into, made
from diffux.networks.network import Network, per_sample
from diffux.operators import average_pool
from diffux.parameterizations import conditioned
from diffux.solvers import ancestral
from diffux.systems.system import System


class Enlarging(Network):
    """(x (B, H, W, C), noise, {"low": (B, h, w, C)}) -> an array of x's shape."""

    channels: int = 16

    @property
    def reads(self):
        return {"low": None}

    @property
    def nulls(self):
        return ()

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        low = jax.image.resize(cond["low"], x.shape, "nearest")
        told = jnp.stack([per_sample(noise, x) / 100, jnp.cos(per_sample(noise, x) / 10)], axis=-1)
        h = nn.Conv(self.channels, (3, 3))(jnp.concatenate([x, low], axis=-1)) + nn.Dense(self.channels)(told)[:, None, None]
        h = nn.Conv(self.channels, (3, 3))(nn.swish(h))
        return nn.Conv(x.shape[-1], (3, 3))(nn.swish(h))


def build(steps: int = 50, channels: int = 16, mask: bool = True, factor: int = 2) -> System:
    """A cosine chain that predicts v; the low image is the data's own, or made of the image where the data have none."""
    clock, process = clocks.chain(steps), processes.Gaussian(schedules.from_betas(schedules.cosine_betas(steps)))
    trusted = (made("trusted", "known", lambda known: known == 1),) if mask else ()
    return System(
        network=Enlarging(channels), process=process, parameterization=conditioned(parameterizations.v, clock.label),
        objective=objectives.denoising(process, weightings.snr_plus_one, clock.times, mask="trusted" if mask else None),
        solver=ancestral(process), grid=clock.grid, steps=clock.steps,
        given=given(made("low", "image", average_pool(factor)), into("low", pixels()), *trusted),
    )  # fmt: skip

"""DDPM of videos, with a network that mixes space and time in turn."""

import flax.linen as nn
import jax.numpy as jnp

from diffux import clocks, objectives, parameterizations, processes, schedules, weightings
from diffux.networks.network import Network, per_sample
from diffux.parameterizations import conditioned
from diffux.solvers import ancestral
from diffux.systems.system import System


class Factorised(Network):
    """(x (B, F, H, W, C), noise, cond) -> an array of x's shape: convolutions over a frame, then over frames."""

    channels: int = 16

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        told = jnp.stack([per_sample(noise, x) / 100, jnp.cos(per_sample(noise, x) / 10)], axis=-1)
        h = nn.Conv(self.channels, (1, 3, 3))(x) + nn.Dense(self.channels)(told)[:, None, None, None]
        h = nn.Conv(self.channels, (3, 1, 1))(nn.swish(h))
        return nn.Conv(x.shape[-1], (1, 3, 3))(nn.swish(h))


def build(steps: int = 50, channels: int = 16) -> System:
    """A cosine chain of `steps` that predicts v."""
    clock, chain = clocks.chain(steps), schedules.from_betas(schedules.cosine_betas(steps))
    process = processes.Gaussian(chain)
    return System(
        network=Factorised(channels),
        process=process,
        parameterization=conditioned(parameterizations.v, clock.label),
        objective=objectives.denoising(process, weightings.snr_plus_one, clock.times),
        solver=ancestral(process),
        grid=clock.grid,
        steps=clock.steps,
        data="video",
    )

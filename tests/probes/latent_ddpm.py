"""DDPM in the space of another run's autoencoder (Rombach et al., 2022)."""

import flax.linen as nn
import jax.numpy as jnp

from diffux import clocks, objectives, parameterizations, processes, schedules, weightings
from diffux.networks.network import Network, per_sample
from diffux.parameterizations import conditioned
from diffux.solvers import ancestral
from diffux.systems.system import System


class Dense(Network):
    """(z (B, h, w, C), noise, cond) -> an array of z's shape, by layers over all of it."""

    width: int = 64

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        told = jnp.stack([per_sample(noise, x) / 100, jnp.cos(per_sample(noise, x) / 10)], axis=-1)
        h = jnp.concatenate([x.reshape(len(x), -1), told], axis=-1)
        for _ in range(2):
            h = nn.swish(nn.Dense(self.width)(h))
        return nn.Dense(x[0].size)(h).reshape(x.shape)


def build(first_stage, steps: int = 50, width: int = 64) -> System:
    """A cosine chain of latents; `first_stage` is the run of an autoencoder."""
    clock, process = clocks.chain(steps), processes.Gaussian(schedules.from_betas(schedules.cosine_betas(steps)))
    return System(
        network=Dense(width), process=process, parameterization=conditioned(parameterizations.v, clock.label),
        objective=objectives.denoising(process, weightings.snr_plus_one, clock.times), solver=ancestral(process), grid=clock.grid,
        steps=clock.steps, codec=first_stage.codec(),
    )  # fmt: skip

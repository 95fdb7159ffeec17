"""A system for points in the plane, small enough to compile in a moment, and a config around it."""

import flax.linen as nn
import jax.numpy as jnp

from diffux import clocks, codecs, objectives, parameterizations, schedules, weightings
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System

CONFIG = {
    "system": {"name": "ddpm", "steps": 20},
    "data": {"name": "swiss_roll", "batch_size": 64},
    "optimizer": {"learning_rate": 1e-2},
    "training": {"steps": 6, "log_every": 2, "sample_every": 3, "checkpoint_every": 3, "eval_examples": 64},
    "sample": {"n": 50},
}


class Layers(nn.Module):
    """Two dense layers, told the noise level."""

    width: int = 16
    classes: int | None = None

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        told = jnp.broadcast_to(jnp.asarray(noise, jnp.float32), x.shape[:1])[:, None] / 20
        return nn.Dense(x.shape[-1])(nn.swish(nn.Dense(self.width)(jnp.concatenate([x, told], -1))))


def build(steps: int = 20, width: int = 16) -> System:
    """A discrete chain of standardised points."""
    process, clock = Gaussian(schedules.from_betas(schedules.cosine_betas(steps))), clocks.chain(steps)
    return System(
        network=Layers(width),
        process=process,
        parameterization=conditioned(parameterizations.epsilon, clock.label),
        objective=objectives.denoising(process, weightings.snr, clock.times),
        solver=ancestral(process),
        grid=clock.grid,
        steps=clock.steps,
        codec=codecs.standardized(),
        data="point",
    )

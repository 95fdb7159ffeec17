"""The sums that diffusers' own tests assert of whole walks with a stand-in for a network, reproduced by our solvers.

The values are those of tests/schedulers/test_scheduler_*.py there (commit 58eb52c080): ten steps from x = 0, 1/768, ... with a
network that gives x t / (t + 1). The peer is asked for its timesteps and sigmas alone; it computes in float32, so that large sums
are known to seven digits.

Not here: walks with the peer's random draws, which test_solvers.py compares step by step with given ones; those whose loop departs
from a walk (Heun's and KDPM2's, which scale the state of the second stage as well; iPNDM's, which goes down twice; PNDM's, off by
one index; LMS's from the middle, with weights for estimates that there are not); and UniPC's and DEIS's whose last step, to a level
that is not clean, has a lower order in the peer alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import Prediction, chain, guidance, sde, solvers
from diffux.noise_level import NoiseLevel
from diffux.solvers.solver import Solver

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.usefixtures("x64", "quick")

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}
RAMP = np.arange(768).reshape(3, 8, 8, 4).transpose(3, 1, 2, 0) / 768  # (B, H, W, C)
NOISE = np.arange(768)[::-1].reshape(3, 8, 8, 4).transpose(3, 1, 2, 0) / 768


def walk(peer, solver, skipped=0, transforms=(), **config):
    """The last state of our walk along the peer's levels, in its coordinates; with `skipped` steps it begins at a noised ramp."""
    made = getattr(diffusers, f"{peer}Scheduler")(**BETAS | config)
    made.set_timesteps(10)
    told = made.timesteps.double().numpy()
    if hasattr(made, "sigmas"):
        rho = made.sigmas.double().numpy()
    else:
        abar = made.alphas_cumprod.double().numpy()
        rho = np.sqrt(1 / np.append(abar[told.astype(int)], float(made.final_alpha_cumprod)) - 1)
    distinct = np.append(True, np.diff(rho) != 0)  # of a second evaluation each step
    told, rho = told[distinct[: len(told)]], rho[distinct]
    exploding = float(made.init_noise_sigma) != 1  # its state is x / alpha
    x = RAMP * (float(made.init_noise_sigma) if exploding else 1)
    if skipped:
        told, rho = told[skipped:], rho[skipped:]
        x = x + rho[0] * NOISE if exploding else (x + rho[0] * NOISE) / np.hypot(1, rho[0])
    alpha = 1 / np.hypot(1, rho)
    levels = NoiseLevel(*map(jnp.asarray, (np.append(told, told[-1] - 1), alpha, alpha * rho)))
    v = config.get("prediction_type") == "v_prediction"

    def denoise(x, level, cond):
        f = x * level.t / (level.t + 1)
        x = cond.get("of", x)  # the state to which the network's answer belongs, where it is not what the network saw
        return Prediction(level.alpha * x - level.sigma * f if v else (x - level.sigma * f) / level.alpha)

    x = jnp.asarray(x * alpha[0] if exploding else x)
    found = solvers.sample(jax.random.key(0), chain(denoise, *transforms), solver, levels, x).x
    return np.asarray(found) / (alpha[-1] if exploding else 1)


def kept(transform):
    """A threshold after which the step goes on with the noise of the estimate before it, as DDIM does there by default."""

    def around(denoise):
        def clipped(x, level, cond):
            plain = denoise(x, level, cond)
            return transform(lambda *_: plain)(x, level, cond)._replace(noise=sde.epsilon(plain.x0, x, level))

        return clipped

    return around


def halved(denoise):
    """The peer's dynamic threshold where its largest value, 0.5, is below its smallest, 1: clipped to 0.5, and doubled."""

    def clipped(x, level, cond):
        prediction = guidance.static_threshold(0.5)(denoise)(x, level, cond)
        return prediction._replace(x0=2 * prediction.x0)

    return clipped


@struct.dataclass
class Scaled(Solver):
    """A solver whose state is multiplied by alpha before each step, as the loops of the peer's tests do where they hand the scaled
    input of the network on to the step."""

    solver: Any

    def init(self, x, levels):
        return self.solver.init(x, levels)

    def step(self, keys, denoise, x, state, *, t, s):
        return self.solver.step(keys, lambda y, level: denoise(y / level.alpha, level, of=y), t.alpha * x, state, t=t, s=s)


class Loop(NamedTuple):
    peer: str
    solver: Any
    config: dict
    mean: float
    sum: float | None = None
    skipped: int = 0
    transforms: tuple = ()


V, KARRAS, LONG = {"prediction_type": "v_prediction"}, {"use_karras_sigmas": True}, {"num_train_timesteps": 1100}
CLIP = (kept(guidance.static_threshold(1.0)),)
ONE = {"beta_start": 0.01}
DIRTY = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
EULER, LMS = Scaled(solvers.euler()), Scaled(solvers.lms(4, lower_order_final=False))
MULTI = ("DPMSolverMultistep", solvers.dpm_solver_pp_2m("midpoint", False))
LOOPS = {
    "ddim": Loop("DDIM", solvers.ddim(), {}, 0.223967, 172.0067, transforms=CLIP),
    "ddim, v": Loop("DDIM", solvers.ddim(), V, 0.0684, 52.5302, transforms=CLIP),
    "ddim, last alpha 1": Loop("DDIM", solvers.ddim(), ONE | {"set_alpha_to_one": True}, 0.1951, 149.8295, transforms=CLIP),
    "ddim, last alpha not 1": Loop("DDIM", solvers.ddim(), ONE | {"set_alpha_to_one": False}, 0.1941, 149.0784, transforms=CLIP),
    "ddim, noised": Loop("DDIM", solvers.ddim(), {}, 0.4616, 354.5418, 8, CLIP),
    "euler": Loop("EulerDiscrete", EULER, LONG, 0.0131, 10.0807),
    "euler, v": Loop("EulerDiscrete", EULER, LONG | V, 2.2676e-06, 0.0002),
    "euler, karras": Loop("EulerDiscrete", EULER, LONG | KARRAS, 0.16213932633399963, 124.52299499511719),
    "euler, noised": Loop("EulerDiscrete", EULER, LONG, 74.3007, 57062.9297, 8),
    "lms": Loop("LMSDiscrete", LMS, LONG, 1.31, 1006.388),
    "lms, v": Loop("LMSDiscrete", LMS, LONG | V, 2.2676e-06, 0.0017),
    "lms, karras": Loop("LMSDiscrete", LMS, LONG | KARRAS, 4.9648, 3812.9927),
    "2m": Loop(*MULTI, DIRTY, 0.3301),
    "2m, v": Loop(*MULTI, DIRTY | V, 0.2251),
    "2m, v, karras": Loop(*MULTI, DIRTY | V | KARRAS, 0.2096),
    "2m, v, lu": Loop(*MULTI, DIRTY | V | {"use_lu_lambdas": True}, 0.1554),
    "2m, noised": Loop(*MULTI, DIRTY, 0.4146, 318.4111, 5),
    "2m, threshold": Loop(*MULTI, DIRTY, 1.1364, transforms=(halved,)),
    "unipc, karras": Loop("UniPCMultistep", solvers.unipc(2), DIRTY | KARRAS, 0.2925),
    "unipc, v, karras": Loop("UniPCMultistep", solvers.unipc(2), DIRTY | V | KARRAS, 0.1966),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_sum(name):
    loop = LOOPS[name]
    found = np.abs(walk(loop.peer, loop.solver, loop.skipped, loop.transforms, **loop.config))
    assert abs(found.mean() - loop.mean) < 1e-3
    if loop.sum is not None:
        assert abs(found.sum() - loop.sum) < max(1e-2, 1e-6 * loop.sum)

"""Classifier guidance: the estimate moves along the gradient of log p(y | x_t)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux.denoisers import as_denoiser
from diffux.naming import pick
from diffux.types import Denoiser, Net, Parameterization, as_part


@struct.dataclass
class Classifier:
    """x0 + scale sigma^2 / alpha grad_x log p(y | x)."""

    log_prob: Callable
    scale: Any
    moves: str = struct.field(pytree_node=False)
    neutral: ClassVar[dict[str, float]] = {"scale": 0.0}

    @property
    def reads(self) -> Mapping[str, int | None]:
        return getattr(self.log_prob, "reads", {"label": None})

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def guided(x, level, cond):
            prediction = denoise(x, level, cond)
            # the sum, not the mean: a sample's gradient does not depend on its batch
            slope = jax.grad(lambda x: jnp.sum(self.log_prob(x, level, cond)))(x)
            slope = self.scale * jnp.where(_between(level, x), slope, 0)
            if self.moves == "mean":
                known = 0 if prediction.gradient is None else prediction.gradient  # of another classifier in the chain
                return prediction._replace(gradient=known + slope.astype(x.dtype))
            shift = covariance_factor(level, x) * slope
            return prediction._replace(x0=prediction.x0 + shift.astype(x.dtype))

        return guided


def _between(level, x):
    level = level.like(x)
    return (level.alpha > 0) & (level.sigma > 0)


def covariance_factor(level, x):
    """sigma^2 / alpha, for x of shape (B, *d); 0 at alpha = 0, where the gradient that it would multiply is zero."""
    level = level.like(x)
    return jnp.where(level.alpha > 0, level.sigma**2 / jnp.where(level.alpha > 0, level.alpha, 1), 0)


def classifier(log_prob: Callable, scale: float = 1.0, moves: str = "estimate") -> Classifier:
    """x0 + scale sigma^2 / alpha grad_x log p(y | x_t): 0 is unguided, 1 Bayes' rule (Dhariwal and Nichol, 2021, sec. 4;
    Song et al., 2021, eq. 14).

    `log_prob(x, level, cond)` gives log p(y | x_t) of shape (B,): a `NoisyClassifier`, or any function; what it is asked
    for is in `cond`. The network's variance is kept. For every process this is eps - scale sigma grad, the paper's
    algorithm 2 for DDIM. In ancestral sampling it moves the mean by scale (alpha_s / alpha_t) beta grad, with beta the
    variance of the transition from s to t: algorithm 1's scale Sigma grad in the limit beta -> 0 with the upper variance
    Sigma = beta, while the posterior variance there guides less. moves="mean" is algorithm 1 itself, mean + scale Sigma grad with
    the variance Sigma of the reverse step, a learned one too: for `ancestral`, and refused by other solvers. The gradient is
    taken at x_t, as in both algorithms. The last level (sigma = 0) needs no guidance, and the level alpha = 0 gets none, since x is
    then noise.

    The order matters in `chain`: a threshold after this one clips the guided estimate, one before it only the model's,
    as the released code does.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> guided = classifier(lambda x, level, cond: 3 * x[:, 0], 2.0)(lambda x, level, cond: Prediction(0 * x))
        >>> round(float(guided(jnp.zeros((1, 1)), level, {}).x0[0, 0]), 3)
        6.4
    """
    pick("what a classifier moves", moves, {"estimate": None, "mean": None})
    return Classifier(as_part(log_prob), scale, moves)


@struct.dataclass
class NoisyClassifier:
    """log p(label | x_t) of a network's logits, with its weights as leaves: another classifier does not compile again."""

    network: Net
    parameterization: Parameterization
    classes: int | None = struct.field(pytree_node=False, default=None)

    @property
    def reads(self) -> dict[str, int | None]:
        return {"label": self.classes}

    def logits(self, x, level, cond=None):
        """(B, *d) -> (B, classes)."""
        return as_denoiser(self.network, self.parameterization)(x, level, cond or {}).x0

    def __call__(self, x, level, cond):
        if "label" not in cond:
            came = sorted(cond) or "no condition"
            raise ValueError(f'a classifier is asked for cond["label"], shape ({x.shape[0]},), got {came}')
        logits = self.logits(x, level, cond)
        scores = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        return jnp.take_along_axis(scores, cond["label"][:, None], 1)[:, 0]


def noisy_classifier(network: Net, parameterization: Parameterization, classes: int | None = None) -> NoisyClassifier:
    """log p(cond["label"] | x_t), shape (B,), by a `Net` (x, noise, cond) -> logits (B, classes), without dropout.

    `parameterization` is the classifier's own, `conditioned(direct, ...)`, which says what number the network is told; of a
    trained run `systems.resolved(run.system, run.variables)` has both. `classes`, where they are known, bound the labels.
    """
    return NoisyClassifier(network, parameterization, classes)

"""Posterior sampling: the estimate is moved towards a measurement y = A(x_0) + noise of what is sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffux.guidance._classifier import covariance_factor
from diffux.guidance.linear import conjugate_gradients, need_iterations, need_std, residual, solve, transposed
from diffux.noise_level import NoiseLevel, append_axes
from diffux.types import Denoiser, as_part, checked


class Products(NamedTuple):
    """Products with A, linearised at x0_hat, and with Cov[x_0 | x_t], at one x_t: functions of flat (B, M) or of (B, *d)."""

    forward: Callable  # v (B, *d) -> A v (B, M)
    backward: Callable  # w (B, M) -> A^T w (B, *d)
    covariance: Callable  # v (B, *d) -> Cov v (B, *d)
    level: NoiseLevel  # fields () or (B,)


@struct.dataclass
class PosteriorSampling:
    """x0 + Cov A^T w, w = grad log N(y; A x0_hat, covariance)."""

    measure: Any
    y: Any
    std: Any
    covariance: Any
    bounded: bool = struct.field(pytree_node=False, default=True)

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def guided(x, level, cond):
            # reverse mode alone: the networks' convolution refuses forward mode on CPU
            x0, pull, prediction = jax.vjp(lambda x: _estimate(checked(denoise(x, level, cond), x)), x, has_aux=True)
            measured, back = jax.vjp(self.measure, x0)
            left, factor = residual(self.y, measured), covariance_factor(level, x)
            backward = lambda w: back(w.reshape(measured.shape))[0]  # noqa: E731
            forward = transposed(backward, jnp.zeros_like(left))
            # Cov[x_0 | x_t] = sigma^2 / alpha d x0_hat / d x (Tweedie's second moment), symmetric for an exact score
            covariance = lambda v: (factor * pull(v)[0]).astype(x.dtype)  # noqa: E731
            products = Products(forward, backward, covariance, level)
            weight = self.covariance(left, self.std, products)
            inside = level.like(x)
            shift = jnp.where((inside.alpha > 0) & (inside.sigma > 0), covariance(backward(weight)), 0)
            if self.bounded:
                shift = append_axes(_until_nearest(forward(shift), left), shift) * shift
            return prediction._replace(x0=x0 + shift)

        return guided


def _estimate(prediction):
    return prediction.x0, prediction


def _until_nearest(moved, residual):
    """The share (B,) of a move, at most all of it, after which what is measured is nearest to y."""
    along, size = jnp.sum(moved * residual, axis=1), jnp.sum(moved**2, axis=1)
    return jnp.where(size > 0, jnp.clip(along / jnp.where(size > 0, size, 1), 0, 1), 1)


def posterior_sampling(measure: Callable, y: Any, std: float, covariance: Any = None, bounded: bool = True) -> PosteriorSampling:
    """The estimate given y = A(x_0) + N(0, std^2 I): x0_hat + Cov A^T w, with w = grad_m log N(y; m, ...) at m = A(x0_hat).

    measure: A, an operator of `diffux.operators` or any function (B, *d) -> (B, *m) that JAX can differentiate in reverse; one
    that is not linear is linearised at x0_hat. y: (B, *m), or broadcasting to it. covariance: what is believed of
    Cov[x_0 | x_t] in the likelihood:

    - `tweedie()`, the default: Cov itself. Exact for Gaussian data and linear A.
    - `isotropic(variance)`: r_t^2 I (PiGDM).
    - `dps()`, `dps(step)`: nothing. Biased, and cheap.

    bounded: no sample is moved further than to where A(x0_hat), linearised, is nearest to y. By the exact rule none is: its move
    is K (K + std^2 I)^-1 of the way, with K = A Cov A^T. The other two, and a learned Jacobian, move many times the way at high
    noise, where walks of a learned network then run off to infinity. False gives the equations as published.

    Cov = sigma^2 / alpha d x0_hat / d x in front is the chain rule of grad_x log p(y | x_t), which every rule shares. It is
    read off the vector-Jacobian product, which is right for a symmetric Jacobian, as that of an exact score is; a learned
    one is nearly so. Nothing is moved at the clean end, nor at alpha = 0, where the Jacobian is zero and tells nothing.
    Put it before thresholds in `chain`: the Jacobian of a clipped estimate is zero where it clips.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> unit = lambda x, level, cond: Prediction(level.alpha * x)          # data N(0, 1): Cov = sigma^2 = 0.64
        >>> guided = posterior_sampling(lambda x: x, 1.0, 0.6)(unit)
        >>> round(float(guided(jnp.zeros((1, 1)), level, {}).x0[0, 0]), 3)      # 0.64 / (0.64 + 0.36)
        0.64
    """
    need_std("posterior_sampling", std)
    covariance = tweedie() if covariance is None else covariance
    if isinstance(covariance, DPS) and covariance.step is None and isinstance(std, int | float) and std == 0:
        raise ValueError("dps() divides by std^2, and std is 0; what fits: dps(step), isotropic(), tweedie()")
    return PosteriorSampling(as_part(measure), y, std, covariance, bool(bounded))


@struct.dataclass
class DPS:
    """The likelihood at x0_hat, as if x_0 were it."""

    step: Any

    def __call__(self, residual, std, products: Products):
        if self.step is None:
            return residual / std**2
        norm = jnp.sqrt(jnp.sum(residual**2, axis=1, keepdims=True))
        return 2 * self.step * residual / jnp.where(norm > 0, norm, 1)


def dps(step: float | None = None) -> DPS:
    """Plain diffusion posterior sampling: p(y | x_t) = N(y; A x0_hat, std^2 I) (Chung et al., 2023, eq. 11 and 16).

    With `step`, the weight 1 / (2 std^2) of the squared residual |r|^2 is step / |r|, the paper's choice in practice
    (alg. 1; its zeta, which is added to x_s, is step times beta of the chain's step). The likelihood leaves out how
    uncertain x0_hat is, and so is far too sure at high noise: the samples' law is not the posterior's
    (docs/inverse_problems.md).
    """
    return DPS(step)


@struct.dataclass
class Isotropic:
    """Cov[x_0 | x_t] = r^2 I."""

    variance: Any
    iterations: int | None = struct.field(pytree_node=False)

    def __call__(self, residual, std, products: Products):
        level = products.level
        spread = self.variance * level.sigma**2 / (self.variance * level.alpha**2 + level.sigma**2)
        product = lambda w: append_axes(spread, w) * products.forward(products.backward(w))  # noqa: E731
        return _solve(product, residual, std, self.iterations)


def isotropic(variance: float = 1.0, iterations: int | None = None) -> Isotropic:
    """Cov[x_0 | x_t] = r_t^2 I with r_t^2 = sigma^2 / (alpha^2 + sigma^2) for data of unit variance, in general
    v sigma^2 / (v alpha^2 + sigma^2): pseudo-inverse guidance (Song et al., 2023, PiGDM, eq. 7-8).

    Exact for data N(m, v I). `iterations` as in `tweedie`. The gradient is that of the equation; the paper's sampler
    weighs it further.
    """
    need_iterations(iterations)
    return Isotropic(variance, iterations)


@struct.dataclass
class Tweedie:
    """Cov[x_0 | x_t] from the Jacobian of the estimate."""

    iterations: int | None = struct.field(pytree_node=False)

    def __call__(self, residual, std, products: Products):
        product = lambda w: products.forward(products.covariance(products.backward(w)))  # noqa: E731
        return _solve(product, residual, std, self.iterations)


def tweedie(iterations: int | None = None) -> Tweedie:
    """Cov[x_0 | x_t] = sigma^2 / alpha d x0_hat / d x: p(y | x_t) = N(y; A x0_hat, A Cov A^T + std^2 I) (Boys et al., 2023,
    eq. 9-11; Tweedie's second moment).

    iterations: None builds the M x M matrix by M products (few measurements) and solves it; a number takes as many
    conjugate gradient steps, a product each, sample by sample.
    """
    need_iterations(iterations)
    return Tweedie(iterations)


def _solve(product: Callable, right, std, iterations: int | None):
    """w (B, M) of (K + std^2 I) w = right, for the symmetric K that `product` multiplies by."""
    if iterations is None:
        return solve(product, right, jnp.asarray(std) ** 2)
    return conjugate_gradients(lambda w: product(w) + std**2 * w, right, iterations)

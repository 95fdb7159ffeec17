"""The proximal step: the estimate is moved to where it fits a measurement y = A x_0 + noise, without a gradient of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.guidance.linear import conjugate_gradients, need_iterations, need_std, residual, solve, transposed
from diffux.noise_level import append_axes, level_dtype
from diffux.types import Denoiser, as_part, checked


@struct.dataclass
class Proximal:
    """argmin_x |y - A x|^2 + rho |x - x0_hat|^2."""

    measure: Any
    y: Any
    std: Any
    weight: Any
    iterations: int | None = struct.field(pytree_node=False, default=None)

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def restored(x, level, cond):
            prediction = checked(denoise(x, level, cond), x)
            x0, noisy = prediction.x0.astype(level_dtype(x)), level.sigma > 0
            ratio = level.alpha / jnp.where(noisy, level.sigma, 1)
            rho = jnp.asarray(self.weight * self.std**2 * ratio**2, x0.dtype)
            shift = self._shift(x0, rho)
            # at the clean end rho is infinite, unless there is no noise in y either
            moves = noisy | (jnp.asarray(self.std) == 0)
            return prediction._replace(x0=(x0 + jnp.where(append_axes(moves, x0), shift, 0)).astype(prediction.x0.dtype))

        return restored

    def _shift(self, x0, rho):
        """What is added to x0 (B, *d), for rho () or (B,)."""
        measured, rho = self.measure(x0), jnp.reshape(rho, (-1, 1))
        back = _transpose(self.measure, x0)
        if self.iterations is not None:  # (A^T A + rho I)^-1 A^T r, which has no part that A does not see
            forward = transposed(back, measured)  # A without what it may add
            product = lambda v: back(forward(v.reshape(x0.shape))).reshape(v.shape) + rho * v  # noqa: E731
            right = back(residual(self.y, measured).reshape(measured.shape)).reshape(x0.shape[0], -1)
            return conjugate_gradients(product, right, self.iterations).reshape(x0.shape)
        one, shape = _transpose(self.measure, x0[:1]), (1, *measured.shape[1:])
        forward = transposed(one, jnp.zeros(shape, measured.dtype))
        product = lambda w: forward(one(w.reshape(shape))).reshape(1, -1)  # noqa: E731
        # A^T (A A^T + rho I)^-1 r, with an A A^T that is the same for all samples
        return back(solve(product, residual(self.y, measured), rho, alike=True).reshape(measured.shape))


def _transpose(measure: Callable, x) -> Callable:
    """A^T of what `measure` does to x; ValueError where that is not linear."""
    try:
        back = jax.linear_transpose(measure, x)
        jax.eval_shape(back, jax.eval_shape(measure, x))
    except (NotImplementedError, AssertionError) as error:  # of an operation, and of a product, that has no transpose
        raise ValueError("proximal needs a linear measurement, such as those of diffux.operators; for another one "
                         "posterior_sampling fits, which linearises it") from error  # fmt: skip
    return lambda w: back(w)[0]


def proximal(measure: Callable, y: Any, std: float, weight: float = 1.0, iterations: int | None = None) -> Proximal:
    """The estimate moved to where it fits y = A x_0 + N(0, std^2 I): the data step of DiffPIR (Zhu et al., 2023, alg. 1).

        x0 = argmin_x |y - A x|^2 + rho_t |x - x0_hat|^2 = x0_hat + A^T (A A^T + rho_t I)^-1 (y - A x0_hat)

    with rho_t = weight std^2 alpha^2 / sigma^2, the paper's lambda sigma_n^2 / sigma_bar_t^2. With weight 1 it is E[x_0 | x_t, y]
    for data of which nothing is known but x_t. No gradient of the network is taken, so a step costs what it does without y, and
    the law is biased (docs/inverse_problems.md). `solvers.ddim(zeta=...)` is the paper's walk; any other goes with it as well.

    - measure: A, an operator of `diffux.operators` or any linear function (B, *d) -> (B, *m). y: (B, *m), or broadcasting to it.
    - std: 0 projects at every level: of the x with A x = y, or with the least |A x - y| where there is none, the nearest to x0_hat.
    - weight: how far x0_hat is trusted; 1 in the released settings, whose std is for images in [0, 1] while x is in [-1, 1], so
      that their 1 is 0.25 here.
    - iterations: None builds A A^T, M x M, once for the batch; a number takes as many conjugate gradient steps with A^T A.

    Where sigma = 0 nothing is moved, unless std is 0. Raises ValueError for a negative std, a weight that is not above 0 and
    finite, a measurement that is not linear, and a y that does not broadcast to what is measured.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> ones = lambda x, level, cond: Prediction(jnp.ones_like(x))
        >>> restored = proximal(lambda x: x[:, :1], 3.0, 4 / 3)(ones)     # rho = (4 / 3)^2 (3 / 4)^2 = 1
        >>> restored(jnp.zeros((1, 2)), level, {}).x0.tolist()
        [[2.0, 1.0]]
    """
    need_std("proximal", std)
    if isinstance(weight, int | float) and not 0 < weight < float("inf"):
        raise ValueError(f"proximal needs a finite weight above 0, got {weight}; without noise in y, std=0 projects")
    need_iterations(iterations)
    return Proximal(as_part(measure), y, std, weight, iterations)

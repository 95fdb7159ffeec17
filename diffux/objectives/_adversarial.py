"""The losses of two networks of which one tells real images from those that the other makes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from diffux.types import PyTree


def hinge(real: Any, made: Any) -> Any:
    """() of the one that tells them apart, from its logits of real images and of made ones (Lim and Ye, 2017, eq. 6).

    Example:
        >>> float(hinge(jnp.asarray([2.0, 0.0]), jnp.asarray([-3.0, -1.0])))
        0.25
    """
    return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + made))) / 2


def adaptive_weight(loss: PyTree, adversarial: PyTree, most: float = 1e4) -> Any:
    """() by which the adversarial loss weighs as much as the other one at some weights, whose gradients of both these are: the
    ratio of their norms, at most `most` (Esser et al., 2021, eq. 7). No gradient flows through it.

    Example:
        >>> round(float(adaptive_weight(jnp.asarray([3.0, 4.0]), jnp.asarray([0.0, 0.5]))), 2)
        10.0
    """
    norms = [jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))) for tree in (loss, adversarial)]
    return jax.lax.stop_gradient(jnp.clip(norms[0] / (norms[1] + 1e-4), 0, most))

"""Classifier-free guidance: extrapolate from the unconditional estimate through the conditional one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.guidance._around import Beside
from diffux.networks.embeddings import null_of
from diffux.noise_level import NoiseLevel
from diffux.types import Denoiser, Prediction


@struct.dataclass
class Against(Beside):
    """What guides away from another condition: by default the null of every entry, of those in `drop`, or those of `against`."""

    scale: Any
    drop: tuple[str, ...] | None = struct.field(pytree_node=False)
    against: Mapping[str, Any] | None
    name: ClassVar[str]

    def both(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Any]]:
        """(x, level, cond) -> the conditional prediction and the other x0, of one evaluation of a doubled batch."""

        def pair(x, level, cond):
            batch = x.shape[0]
            mine, other = self._pair(cond, batch)
            doubled = NoiseLevel(*(_twice(field, field) for field in level))
            both = denoise(jnp.concatenate([x, x]), doubled, jax.tree.map(_twice, mine, other))
            # the variance, where there is one, is the conditional branch's
            variance = None if both.variance is None else both.variance[:batch]
            return Prediction(both.x0[:batch], variance), both.x0[batch:]

        return pair

    def _pair(self, cond, batch: int):
        """The condition as it is and the other one, of one structure."""
        nothing, everything = jnp.zeros(batch, bool), jnp.ones(batch, bool)
        flags, against = cond.get("null", nothing), self.against or {}
        if self.drop is None and not against and not isinstance(flags, Mapping):
            return {**cond, "null": flags}, {**cond, "null": everything}
        names = [name for name in cond if name != "null"]
        flags = {name: null_of({"null": flags}, name, batch) for name in names}
        dropped = names if self.drop is None else self.drop
        null = {name: everything if name in dropped else flags[name] for name in names} | dict.fromkeys(against, nothing)
        instead = {name: jnp.broadcast_to(jnp.asarray(value), jnp.shape(cond[name])) for name, value in against.items()}
        return {**cond, "null": flags}, {**cond, **instead, "null": null}

    def fits(self, system) -> None:
        """Raise ValueError where the network could not tell the two conditions apart."""
        reads = getattr(system.network.module, "reads", None)
        if reads is None:
            return
        can = tuple(getattr(system.network.module, "nulls", reads))
        named = [*(self.drop or ()), *(self.against or ())]
        missing = [name for name in named if name not in (reads if name in (self.against or {}) else can)]
        if not missing and can and not system.given.drops and (self.drop is None or self.drop):
            raise ValueError(f"{self.name} takes a model's null condition, which this one was trained without: its system needs "
                             "a label_dropout above 0")  # fmt: skip
        if missing or not (named or can):
            has = ", ".join(can) or "none: this model is unconditional"
            what = f"{self.name} of {missing[0]}" if missing else self.name
            raise ValueError(f"{what} would change nothing: the conditions that the network has a null for are {has}")


@struct.dataclass
class ClassifierFree(Against):
    """x0(other) + scale (x0(cond) - x0(other)), with the null condition for the other."""

    name = "classifier_free"
    neutral: ClassVar[dict[str, float]] = {"scale": 1.0}

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        both = self.both(denoise)

        def pair(x, level, cond):
            conditional, null = both(x, level, cond)
            return conditional._replace(x0=null + self.scale * (conditional.x0 - null)), conditional

        return pair


@struct.dataclass
class ClassifierFreePP(Against):
    """x0 as in `ClassifierFree`, and the other condition's noise for the way to the next level."""

    name = "classifier_free_pp"
    neutral: ClassVar[dict[str, float]] = {}

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        both = self.both(denoise)

        def pair(x, level, cond):
            conditional, null = both(x, level, cond)
            x0 = null + self.scale * (conditional.x0 - null)
            return conditional._replace(x0=x0, noise=sde.epsilon(null, x, level)), conditional

        return pair


def _twice(a, b):
    return jnp.concatenate([a, b]) if jnp.ndim(a) else a


def classifier_free(scale: float, drop: Sequence[str] | None = None, against: Mapping[str, Any] | None = None) -> ClassifierFree:
    """x0(null) + scale (x0(cond) - x0(null)): 1 is conditional, 0 unconditional (Ho and Salimans, 2022, eq. 6; s = 1 + w).

    - drop: the entries that are null in x0(null); by default all. Two scales are a chain: classifier_free(3, drop=("text",)) and
      then classifier_free(1.5, drop=("image",)).
    - against: {entry: value} to stand in the place of the null, such as an embedded negative prompt, of the entry's shape.

    One evaluation of a doubled batch. x0 is affine in epsilon, score and v at fixed x_t, so guiding any is the same. Entries of
    shape () are left as they are.
    """
    return ClassifierFree(scale, None if drop is None else tuple(drop), against)


def classifier_free_pp(scale: float = 0.6, drop: Sequence[str] | None = None,
                       against: Mapping[str, Any] | None = None) -> ClassifierFreePP:  # fmt: skip
    """CFG++: x0(null) + scale (x0(cond) - x0(null)), and from there to the next level with the noise of x0(null), which stays on
    the data's manifold (Chung et al., 2025, alg. 2).

    A scale from 0 to 1 does what 1 to 12.5 do in `classifier_free`: 0 is unconditional, and 1 is not the conditional model, whose
    noise is another; no scale is neutral. It goes with the solvers that take a step's noise, `ddim` of any eta and what is built on
    it. `drop` and `against` as in `classifier_free`.
    """
    return ClassifierFreePP(scale, None if drop is None else tuple(drop), against)

"""Systems that answer at once, without a walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from diffux import keys as rng
from diffux.solvers import Sampled
from diffux.systems.system import conditions


def answered(system: Any, answer: Callable[[dict[str, Any], tuple[int, ...]], Any], keys, shape, given, *, what: str, steps, save,
             progress) -> Sampled:  # fmt: skip
    """What `generate` returns of a system, `what`, that answers with answer(conditions, shape) and does not walk.

    Raises ValueError where more than one step is asked for, or more than one state is to be kept.
    """
    if not (steps in (None, 1) and save in (None, 1)):
        raise ValueError(f"{what} answers in 1 step, which is all there is to keep, got steps {steps} and save {save}")
    shape = tuple(getattr(shape, "shape", shape))
    x = answer(system.conditions(rng.fold_in(keys, 2), given, shape[0]), shape)
    if progress is not None:
        progress(1, 1)
    return Sampled(x, None if save is None else x[None], ())


class GivesBack:
    """An autoencoder's answer to a picture, the field "source": what comes back of it, `back(images)`, the same for every key."""

    what: str = "an autoencoder"

    @property
    def reads(self) -> dict[str, int | None]:
        return {"source": None}

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def conditions(self, keys, given, batch: int) -> dict[str, Any]:
        """As `systems.system.conditions`, of this one."""
        return conditions(self, keys, given, batch, self)

    def generate(self, keys, shape, given, *, steps=None, save=None, progress=None) -> Sampled:
        """What comes back of each picture "source"."""
        return answered(self, lambda cond, shape: _back(self, cond["source"]), keys, shape, given, what=self.what, steps=steps,
                        save=save, progress=progress)  # fmt: skip


@jax.jit
def _back(system, images):
    return system.back(images)

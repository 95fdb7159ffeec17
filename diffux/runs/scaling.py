"""The scale of latents: measured when a run begins, and checked where it is stated."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffux import codecs, data
from diffux.adapted import Adapted
from diffux.config.plan import Plan
from diffux.devices import together as distributed
from diffux.errors import UserError

BATCHES = 8
"""The batches of the data that the numbers are of."""
LEAST, MOST = 0.5, 2.0
"""Where a latent's standard deviation is near enough to 1."""


def scaled(plan: Plan, parts: Mapping[str, Any], examples: data.Source, say: Callable[[str], None]) -> tuple[Plan, dict[str, Any]]:
    """(the plan with the numbers of its latents, `parts` with them) of a run that begins.

    Where the config states a scale, its latents are only looked at: of a standard deviation far from 1 noise at the levels of the
    chain is too much or too little, and training from scratch is refused with the number; of a codebook, and where trained weights
    are gone on from, it is said.
    """
    parts, found = dict(parts), codecs.latents_in(getattr(plan.system, "codec", None))
    if not found:
        return plan, parts
    batches = itertools.islice(plan.data.batches(examples, plan.seed, 0), BATCHES)
    law = codecs.measured(found[0], jax.random.key(plan.seed), (batch[plan.system.data] for batch in batches))
    if not law.std > 0:  # nor is NaN
        raise UserError(f"the latents have the standard deviation {law.std:.3g}, and nothing can be diffused in them: is the first "
                        "stage trained?")  # fmt: skip
    if found[0].scale is None:
        numbers = {"scale": 1 / law.std, "shift": list(law.means)}
        # every process has looked at its own share of the data
        parts["latents"] = json.loads(distributed.exchange("latents", json.dumps(numbers))[0])
        say(f"latents: scale {parts['latents']['scale']:.4g}, measured over {BATCHES} batches of {examples.things}")
        return dataclasses.replace(plan, system=codecs.told(plan.system, **parts["latents"])), parts
    if not LEAST <= law.scaled <= MOST:
        stated = float(np.mean(found[0].numbers[0]))
        said = (f"the latents have the standard deviation {law.scaled:.3g} at system.scale={stated:.4g}, and the noise is for one "
                f"near 1: leave the scale out, and it is measured, or state {1 / law.std:.4g}")  # fmt: skip
        scratch = plan.training.start is None and not isinstance(plan.system.network, Adapted)
        if found[0].codebook is None and scratch:
            raise UserError(said)
        say(f"warning: {said}")
    return plan, parts

"""What is measured of the data when a run begins: the scale of latents, checked where it is stated, and what a system says."""

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
"""The batches of the data that the numbers of latents are of, and the fewest that those of a system are of."""
EXAMPLES = 4096
"""The fewest examples that the numbers of a system are of."""
LEAST, MOST = 0.5, 2.0
"""Where a latent's standard deviation is near enough to 1."""


def told(system: Any, parts: Mapping[str, Any]) -> Any:
    """`system` with the numbers that its run measured when it began, see `folder.parts`."""
    system = codecs.told(system, **parts["latents"]) if parts["latents"] else system
    return system.told(parts["measured"]) if parts["measured"] else system


def need_told(system: Any, where: Any) -> None:
    """Raise UserError for the system of a run in `where` that has begun and lost the numbers that it measured."""
    if getattr(system, "unmeasured", False):
        raise UserError(f"the run in {where} does not say what it measured of its data when it began, and cannot go on without: "
                        "parts.json, which has it, is gone")  # fmt: skip


def measured(plan: Plan, parts: Mapping[str, Any], examples: data.Source,
             say: Callable[[str], None]) -> tuple[Plan, dict[str, Any]]:  # fmt: skip
    """(the plan with the numbers that its latents and its system measure of the data, `parts` with them) of a run that begins.

    Such a system says that it is `unmeasured`, and has `measure(batches) -> (numbers, words)` and `told(numbers) -> system`.
    """
    plan, parts = scaled(plan, parts, examples, say)
    if getattr(plan.system, "unmeasured", False):
        count = max(BATCHES, -(-EXAMPLES // plan.data.batch_size))
        found, words = plan.system.measure(itertools.islice(plan.data.batches(examples, plan.seed, 0), count))
        parts["measured"] = json.loads(_agreed("measured", found))
        say(f"{words}, measured over {count} batches of {examples.things}")
        plan = dataclasses.replace(plan, system=told(plan.system, parts))
    return plan, parts


def _agreed(name: str, numbers: Mapping[str, Any]) -> str:
    """The numbers of process 0, as JSON: every process has looked at its own share of the data."""
    return distributed.exchange(name, json.dumps(numbers))[0]


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
        parts["latents"] = json.loads(_agreed("latents", numbers))
        say(f"latents: scale {parts['latents']['scale']:.4g}, measured over {BATCHES} batches of {examples.things}")
        return dataclasses.replace(plan, system=told(plan.system, parts)), parts
    if not LEAST <= law.scaled <= MOST:
        stated = float(np.mean(found[0].numbers[0]))
        said = (f"the latents have the standard deviation {law.scaled:.3g} at system.scale={stated:.4g}, and the noise is for one "
                f"near 1: leave the scale out, and it is measured, or state {1 / law.std:.4g}")  # fmt: skip
        scratch = plan.training.start is None and not isinstance(plan.system.network, Adapted)
        if found[0].codebook is None and scratch:
            raise UserError(said)
        say(f"warning: {said}")
    return plan, parts

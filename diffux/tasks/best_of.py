"""The best of several: one model drawn several times, of which another model, the judge, keeps the sample that it likes best."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from diffux import keys as rng
from diffux.errors import UserError
from diffux.tasks import check_draws, stage

MODELS = ("model", "judge")


def check(models, draws=4):
    """Raise UserError where the judge cannot judge, and for no draws."""
    if not hasattr(models["judge"].system, "score"):
        raise UserError(
            f"the judge of best_of is a run that scores samples, such as one of noisy_classifier, got {models['judge'].plan.name}"
        )
    check_draws(draws)


def run(keys, models, given, *, draws=4, progress=None):
    """Of `draws` samples under each condition the one with the largest score, (B,) of all fields together."""
    model, judge = models["model"], models["judge"]
    score, drawn, scores = jax.jit(lambda judge, fields: judge.score(fields)), [], []
    for i in range(draws):
        drawn.append(model.generate(rng.fold_in(keys, i), model.share(given), progress=stage(progress, i, draws)).x)
        asked = {name: jnp.asarray(value) for name, value in given.items()}
        scores.append(np.asarray(score(judge.frozen, {**asked, model.system.data: drawn[-1]})))
    best = np.argmax(scores, axis=0)
    return {model.system.data: np.stack([np.asarray(x) for x in drawn])[best, np.arange(len(best))]}

"""A vote: one model drawn several times under the same conditions, and one answer of all."""

from __future__ import annotations

import numpy as np

from diffux import keys as rng
from diffux.tasks import check_draws, stage

MODELS = ("model",)


def check(models, draws=5):
    """Raise UserError for no draws."""
    check_draws(draws)


def run(keys, models, given, *, draws=5, progress=None):
    """What most of `draws` samples say, as their field votes: the most frequent class, or the mean of numbers."""
    model = models["model"]
    drawn = [model.generate(rng.fold_in(keys, i), model.share(given), progress=stage(progress, i, draws)).x for i in range(draws)]
    return {model.system.data: model.field.vote(np.stack([np.asarray(x) for x in drawn]))}

"""Pictures that a walk begins with: noised, and drawn anew from there (SDEdit; Meng et al., 2022)."""

from __future__ import annotations

import numpy as np

from diffux.errors import UserError

MODELS = ("model",)


def check(models, start=0.6):
    """Raise UserError for a model that walks from no data, and for a share that is none."""
    model = models["model"]
    if not hasattr(model.system, "process"):
        raise UserError(f"edit is of diffusion models, and this run is a {type(model.system).__name__} ({model.plan.name})")
    if not isinstance(start, int | float) or isinstance(start, bool) or not 0 <= start <= 1:
        raise UserError(f"start is the share of the steps that is walked, from 0 to 1, got {start!r}")


def asks(models, start=0.6):
    """The data themselves, and what the model is given besides."""
    model = models["model"]
    return {model.system.data: (model.field, model), **{name: (field, model) for name, field in model.asks.items()}}


def run(keys, models, given, *, start=0.6, progress=None):
    """Samples that begin with the data given, (B, *d), for the last share `start` of the walk's steps: more is kept of them the
    smaller it is, and at 0 they come back as the model's codec has them."""
    model = models["model"]
    values = np.asarray(given[model.system.data])
    found = model.generate(keys, model.share(given), start=(values, start), progress=progress)
    return {model.system.data: found.x}

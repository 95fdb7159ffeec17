"""A cascade: a small sample of one model is what another, a super-resolution model, is given (Ho et al., 2022)."""

from __future__ import annotations

import numpy as np

from diffux import keys as rng
from diffux.errors import UserError
from diffux.tasks import asks as all_asks
from diffux.tasks import stage

MODELS = ("base", "up")


def check(models, low="low"):
    """Raise UserError where `up` does not take what `base` draws."""
    base, up = models["base"], models["up"]
    if low not in up.asks:
        raise UserError(f"a cascade's up is given {low}, and this one is given {', '.join(up.asks) or 'nothing'}")
    wanted = up.asks[low] and tuple(up.asks[low].shape)
    if wanted is not None and wanted != base.shape:
        raise UserError(f"the cascade's base draws {base.field.things} of {base.shape}, and its up is given {low} of {wanted}")


def asks(models, low="low"):
    """What either model asks for but for `low`, which the first one draws."""
    return {name: one for name, one in all_asks(models).items() if name != low}


def run(keys, models, given, *, low="low", progress=None):
    """Samples of `up`, given those of `base` as the field `low` (Ho et al., 2022, sec. 2)."""
    base, up = models["base"], models["up"]
    small = base.generate(rng.fold_in(keys, 0), base.share(given), progress=stage(progress, 0, 2)).x
    # as a file would hold it: what the model saw in training had so many levels
    small = np.clip(np.asarray(small), 0, 1) if base.field.dequantizes else small
    large = up.generate(rng.fold_in(keys, 1), {**up.share(given), low: small}, progress=stage(progress, 1, 2)).x
    return {up.system.data: large}

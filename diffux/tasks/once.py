"""One model, drawn once."""

from __future__ import annotations

MODELS = ("model",)


def run(keys, models, given, *, save=None, progress=None):
    """Samples of the model; with `save`, that many states of the walk as "trajectory" (save, B, *d) as well."""
    model = models["model"]
    drawn = model.generate(keys, model.share(given), save=save, progress=progress)
    return {model.system.data: drawn.x} | ({} if save is None else {"trajectory": drawn.trajectory})

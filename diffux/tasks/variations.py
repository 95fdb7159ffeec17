"""Other images of what is in a picture: a decoder's draws of the picture's own embedding (Ramesh et al., 2022, sec. 3.1)."""

from __future__ import annotations

from diffux.tasks import _embeddings

MODELS = ("model",)


def check(models):
    """Raise UserError for a model that is given no embedding."""
    _embeddings.check(models["model"])


def asks(models):
    """The picture, of the name of the model's data, and what else the model is given."""
    return _embeddings.asks(models["model"])


def run(keys, models, given, *, progress=None):
    """A draw of the picture's embedding for each key, with a text where the model is given one; a solver with noise, such as ddim
    with eta = 1, varies more than the first noise alone does."""
    model = models["model"]
    shown = model.system.data
    seen = {_embeddings.EMBEDDING: _embeddings.embedded(model, given[shown])}
    return {shown: model.generate(keys, _embeddings.without(given, shown) | seen, progress=progress).x}

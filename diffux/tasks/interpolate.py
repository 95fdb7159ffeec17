"""Between two pictures: images of embeddings on the great circle between theirs (Ramesh et al., 2022, sec. 3.2)."""

from __future__ import annotations

from diffux.errors import UserError
from diffux.tasks import _embeddings

MODELS = ("model",)


def check(models, share=0.5, inverted=False):
    """Raise UserError for a model that is given no embedding, and for a share outside 0 to 1."""
    _embeddings.check(models["model"])
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UserError(f"interpolate goes a share from 0 to 1 of the way from image to other, got {share!r}")


def asks(models, share=0.5, inverted=False):
    """Two pictures, of the name of the model's data and "other", and what else the model is given."""
    return _embeddings.asks(models["model"], "other")


def run(keys, models, given, *, share=0.5, inverted=False, progress=None):
    """The image at a `share` of the way from the picture to the other.

    inverted: begin with a noise between those from which both pictures are drawn again, by DDIM; else with that of the key, which
    is the same for every share.
    """
    model = models["model"]
    names = (model.system.data, "other")
    pictures, others = [given[name] for name in names], _embeddings.without(given, *names)
    both = [_embeddings.embedded(model, one) for one in pictures]
    fields = others | {_embeddings.EMBEDDING: _embeddings.slerp(*both, share)}
    if not inverted:
        return {model.system.data: model.generate(keys, fields, progress=progress).x}
    noises = [_embeddings.inverted(model, keys, one, others | {_embeddings.EMBEDDING: z})
              for one, z in zip(pictures, both, strict=True)]  # fmt: skip
    flat = [noise.reshape(len(noise), -1) for noise in noises]
    noise = _embeddings.slerp(*flat, share).reshape(noises[0].shape)
    return {model.system.data: _embeddings.drawn(model, keys, noise, fields, progress)}

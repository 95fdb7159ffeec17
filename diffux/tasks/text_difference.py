"""A picture changed as one text differs from another: its embedding turned towards the difference of theirs (Ramesh et al., 2022,
sec. 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffux.errors import UserError
from diffux.tasks import _embeddings

MODELS = ("model",)


def check(models, share=0.3, inverted=True):
    """Raise UserError for a model that is given no embedding or knows no text's, and for a share outside 0 to 1."""
    _embeddings.check(models["model"])
    if "caption" not in models["model"].fields:
        raise UserError("text_difference is of a model of captions, and this one's data have none")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UserError(f"text_difference turns a share from 0 to 1 of the way, 0.25 to 0.5 in the paper, got {share!r}")


def asks(models, share=0.3, inverted=True):
    """The picture, of the name of the model's data, its text, "was", the other one, "caption", and what else the model is given."""
    model = models["model"]
    return _embeddings.asks(model) | dict.fromkeys(("was", "caption"), (model.fields["caption"], model))


def run(keys, models, given, *, share=0.3, inverted=True, progress=None):
    """The image of slerp(z, norm(text(caption) - text(was)), share), z the picture's embedding and "was" a text of what it shows.

    The model's own text, where it reads one, is the new one. inverted: begin with the noise from which the picture is drawn again.
    """
    model = models["model"]
    shown = model.system.data
    others, z = _embeddings.without(given, shown, "was"), _embeddings.embedded(model, given[shown])
    text = jax.jit(lambda text, tokens: text(tokens))
    new, old = (text(_embeddings.seen_by(model).see.text, jnp.asarray(given[name])) for name in ("caption", "was"))
    apart = new - old
    apart = apart / jnp.maximum(jnp.linalg.norm(apart, axis=-1, keepdims=True), 1e-6)
    fields = others | {_embeddings.EMBEDDING: _embeddings.slerp(z, apart * jnp.linalg.norm(z, axis=-1, keepdims=True), share)}
    if not inverted:
        return {model.system.data: model.generate(keys, fields, progress=progress).x}
    own = others | {_embeddings.EMBEDDING: z, "caption": given["was"]}
    noise = _embeddings.inverted(model, keys, given[shown], {name: own[name] for name in own if name in model.asks})
    return {model.system.data: _embeddings.drawn(model, keys, noise, fields, progress)}

"""unCLIP: a prior draws the embedding of an image that a text describes, a decoder the image, and others enlarge it (Ramesh et al.,
2022)."""

from __future__ import annotations

import numpy as np

from diffux import keys as rng
from diffux.errors import UserError
from diffux.tasks import _embeddings, check_draws, stage
from diffux.tasks import asks as all_asks

MODELS = ("prior", "decoder")
FURTHER = True
"""Whether more models may follow: each enlarges what the one before it draws."""


def check(models, draws=2, low="low"):
    """Raise UserError where the models do not fit each other, and for no draws."""
    check_draws(draws)
    prior, decoder, *larger = models.values()
    if prior.system.data != _embeddings.EMBEDDING:
        raise UserError(f"a prior draws embeddings, such as one of unclip_prior, and {prior.plan.name} draws {prior.field.things}")
    _embeddings.check(decoder)
    wanted = decoder.asks[_embeddings.EMBEDDING]
    if wanted is not None and tuple(wanted.shape) != prior.shape:
        raise UserError(f"the prior draws embeddings of {prior.shape}, and the decoder is given such of {tuple(wanted.shape)}")
    for name, before, model in zip(list(models)[2:], [decoder, *larger], larger, strict=False):
        if low not in model.asks or (model.asks[low] is not None and tuple(model.asks[low].shape) != before.shape):
            raise UserError(f"{name} is to be given {low} of {before.shape}, and is given {', '.join(model.asks) or 'nothing'}")


def asks(models, draws=2, low="low"):
    """What any of the models asks for but for the embedding and the smaller picture, which the one before draws."""
    return _embeddings.without(all_asks(models), _embeddings.EMBEDDING, low)


def run(keys, models, given, *, draws=2, low="low", progress=None):
    """The image of the best of `draws` embeddings, by its product with the text's own (sec. 2.2)."""
    prior, decoder, *larger = models.values()
    count, text = draws + 1 + len(larger), prior.share(given)
    found = [np.asarray(prior.generate(rng.fold_in(keys, i), text, progress=stage(progress, i, count)).x) for i in range(draws)]
    wanted = np.asarray(prior.frozen.conditions(keys, text, len(found[0]))["text_embedding"])
    best = np.argmax([np.sum(one * wanted, -1) for one in found], 0)
    z = np.stack(found)[best, np.arange(len(best))]
    fields = decoder.share(given) | {_embeddings.EMBEDDING: z}
    x = decoder.generate(rng.fold_in(keys, draws), fields, progress=stage(progress, draws, count)).x
    for i, model in enumerate(larger):
        asked = model.share(given) | {low: np.clip(np.asarray(x), 0, 1)}
        at = draws + 1 + i
        x = model.generate(rng.fold_in(keys, at), asked, progress=stage(progress, at, count)).x
    return {decoder.system.data: x}

"""The diffusion prior of unCLIP: Hierarchical Text-Conditional Image Generation with CLIP Latents (Ramesh et al., 2022, sec. 2.2).

What is diffused is the embedding that a contrastive model has of an image, given a text; `unclip` draws the image of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffux import clocks, networks, objectives, parameterizations, processes, schedules, weightings
from diffux.codecs import standardized
from diffux.conditions import dropped, embedded, given, worded
from diffux.naming import make
from diffux.networks.text_transformer import TextTransformer
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.contrastive import Pair
from diffux.systems.system import System
from diffux.types import Learned, Net


def scaled(by: float = 17.2):
    """Embeddings times a number: the paper's brings those of length 1 and 1024 numbers to the variance of pixels."""
    return standardized(0.0, 1 / by)


def root(features: int):
    """Embeddings times the root of their number of features: those of length 1 get variance 1."""
    return standardized(0.0, features**-0.5)


NORMALIZERS: dict[str, Callable] = {"scaled": scaled, "root": root, "standardized": standardized}
"""What becomes of embeddings before they are diffused; models of different ones do not fit each other."""


def pair_of(contrastive: Any) -> Pair:
    """The encoders of a run of a contrastive model; ValueError for anything else."""
    if not hasattr(contrastive, "embeds"):
        came = "none" if contrastive is None else f"a {type(contrastive).__name__}"
        raise ValueError(f"contrastive is a run of such a model of clean images, nets.contrastive=RUN, got {came}")
    return contrastive.embeds()


def build(contrastive: Any = None, normalizer: Any = "scaled(17.2)", steps: int = 1000, betas: Any = "cosine",
          variance: Any = "posterior", draws: int = 64, text_dropout: float = 0.1, length: int = 256, padding: int = 0,
          text_width: int = 2048, text_layers: int = 24, text_heads: int = 32, network: str = "prior",
          **options) -> System:  # fmt: skip
    """The prior of images in [0, 1] and the field "caption"; the defaults are the paper's (Ramesh et al., 2022, sec. 2.2, table 3).

    - contrastive: a run of such a model, frozen: its embedding of an image is what is diffused, and its embedding of the text is
      given besides the text itself.
    - normalizer: one of `NORMALIZERS`, undone when samples are drawn.
    - steps, betas, variance, draws: the chain, its reverse variance and the walk, as in `ddpm`. The paper's walks have the variance
      of Analytic-DPM.
    - text_dropout: how often training takes the empty text.
    - length, padding: the positions of a text and the token that fills up. text_width, text_layers, text_heads: of the transformer
      that is trained with it. network: "prior", whose fields further keywords are.

    The network predicts the embedding, and the loss is its squared error, without a weight. Raises ValueError where there is no
    such run.
    """
    pair, clock = pair_of(contrastive), clocks.chain(steps)
    chain = schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    process = Gaussian(chain, make("variance", variance, processes.VARIANCES, schedule=chain, steps=steps))
    text = TextTransformer(text_width, text_layers, text_heads, pair.tokens, length, padding)
    return System(
        network=networks.named(network)(text_width=text_width, **options),
        process=process,
        parameterization=conditioned(parameterizations.x_start, clock.label),
        objective=objectives.denoising(process, weightings.uniform, clock.times),
        solver=ancestral(process), grid=clock.grid, steps=draws,
        codec=make("normalizer", normalizer, NORMALIZERS, features=pair.features),
        data="embedding",
        given=given(
            embedded("embedding", "image", pair.image, data=True),
            worded("caption", "negative", Net(text, Learned("text")), (padding,)),
            worded("caption", "negative", pair.text, (padding,), "text_embedding"),
            dropped(text_dropout),
        ),
    )  # fmt: skip

"""GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models (Nichol et al., 2021).

Improved DDPM on ADM's network, which is told of a text by a transformer that is trained with it; a second model enlarges, given the
text as well, and either may be given a picture with holes. `--guidance "classifier_free(3)"` is away from the empty text, and
`--guidance "semantic(text=300, moves='mean')" --net semantic=RUN` is the paper's guidance by a noise-aware CLIP.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from diffux import grids
from diffux.codecs import pasted, pixels
from diffux.conditions import applied, dropped, filled, given, hidden, into, made, worded
from diffux.degradations import masks
from diffux.guidance import blended
from diffux.naming import make, public
from diffux.networks.text_transformer import TextTransformer
from diffux.operators import shrink
from diffux.systems import iddpm
from diffux.systems.ldm import SOLVERS
from diffux.systems.palette import same
from diffux.systems.system import System
from diffux.types import Learned, Net, part


@part
def eight_bits(x):
    """Floats in [0, 1] as a file of 8 bits would hold them; whole numbers as they are."""
    return jnp.round(255 * x) / 255 if jnp.issubdtype(x.dtype, jnp.floating) else x


def build(enlarges: int | None = None, inpaints: bool = False, steps: int = 1000, betas: Any = "cosine", draws: int = 100,
          grid: Any = None, solver: Any = "ancestral", temperature: float | None = None, text_dropout: float = 0.2,
          tokens: int = 50257, length: int = 128, padding: int = 50256, text_width: int = 512, text_layers: int = 16,
          text_heads: int = 8, network: str = "glide_64", **options) -> System:  # fmt: skip
    """GLIDE for images in [0, 1] and the field "caption"; the defaults are the released model of 64 pixels (Nichol et al., 2021).

    - enlarges: the factor of a model that is given the field "low" besides, of whole 8 bits; the released one, of 4, has
      network="glide_up_256", betas="linear", and the walk solver="ddim", draws=27, grid="sections(1000,(10,10,3,2,2),997)",
      temperature=0.997.
    - inpaints: whether it is given a picture with holes, "source" and the mask "kept", which is 1 where pixels are known, and keeps
      these in every estimate and in the result. Such a model is fine-tuned: `training.start` names a run without, and what its
      network reads further begins at zero.
    - steps, betas: the chain, as in `iddpm`, whose hybrid loss it is trained with.
    - draws, grid, solver: of the walk, by name; grid None is `draws` steps of the chain, with both ends.
    - temperature: what the first noise is multiplied by, if anything.
    - text_dropout: how often training takes the empty text; a request says another one by "negative".
    - tokens, length, padding: the vocabulary, the positions, and the token that fills up. text_width, text_layers, text_heads: of
      the transformer.
    - network: "glide_64", "glide" or another that reads a text; further keywords are its fields.
    """
    kept = ("source", "kept") if inpaints else ()
    low = () if enlarges is None else ("low",)
    both = {"text_width": text_width} | ({"beside": (*low, *kept)} if kept or low else {})
    system = iddpm.build(steps, betas, network=network, **both | options)
    text = TextTransformer(text_width, text_layers, text_heads, tokens, length, padding)
    row = (worded("caption", "negative", Net(text, Learned("text")), (padding,)), dropped(text=text_dropout))
    if inpaints:
        row += (hidden("kept", "image", masks.inpainted), made("source", "image", same), applied("source", same, to="known"),
                into("source", pixels()), filled("source", "kept", 0.0))  # fmt: skip
    if enlarges is not None:
        row += (made("low", "image", shrink(enlarges, "area")), applied("low", eight_bits), into("low", pixels()))
    return system.replace(
        given=given(*row), codec=pasted(pixels(), "known", "kept") if inpaints else pixels(), steps=draws, temperature=temperature,
        solver=make("solver", solver, SOLVERS, process=system.process, schedule=system.process.schedule),
        grid=system.grid if grid is None else make("grid", grid, public(grids)),
        guidance=((blended("source", "kept"),) if inpaints else ()) + system.guidance,
    )  # fmt: skip

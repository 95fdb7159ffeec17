"""Latent diffusion (Rombach et al., 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"), with Stable Diffusion.

A discrete chain in the latents of a first stage that was trained before, or in pixels, with a network that may look at a text. The
names and defaults are those of the released models, so that their weights are read as runs of this system (`pretrained`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from diffux import clocks, grids, networks, objectives, parameterizations, processes, schedules, solvers, weightings
from diffux.codecs import Codec, pasted, pixels
from diffux.conditions import Given, Part, applied, augmented, dropped, encoded, filled, given, hidden, into, made, worded
from diffux.degradations import masks
from diffux.guidance import static_threshold
from diffux.naming import make, public
from diffux.networks.label_map import LabelMap
from diffux.networks.t5 import T5
from diffux.operators import shrink
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.systems.iddpm import hybrid
from diffux.systems.palette import same
from diffux.systems.system import System
from diffux.types import Learned, Net, reads

SOLVERS = {name: getattr(solvers, name) for name in ("ancestral", "ddim", "plms", "euler", "euler_ancestral", "dpm_solver_pp_2m",
                                                     "dpm_solver", "heun", "unipc", "lms", "deis")}  # fmt: skip


class Beside(NamedTuple):
    """What makes the pictures beside a latent, and the codec with what is kept of them."""

    parts: tuple[Part, ...]
    codec: Codec


@struct.dataclass
class Holes:
    """Masks, Bool[B, H, W], that are True where a pixel is known -> (B, H / factor, W / factor, 1): 1 where it is to be made, and
    `low` elsewhere, of every position's first pixel."""

    factor: int = struct.field(pytree_node=False)
    low: Any

    def __call__(self, mask):
        return jnp.where(jnp.asarray(mask)[:, :: self.factor, :: self.factor, None], self.low, 1.0)


@struct.dataclass
class Index:
    """The number i - 1 of a level t = i / steps, 0 of those before the first."""

    steps: int = struct.field(pytree_node=False)

    def __call__(self, t):
        return jnp.maximum(jnp.round(jnp.asarray(t) * self.steps).astype(jnp.int32) - 1, 0)


def inpainting(codec: Codec, factor: int, fill: float = 0.5, low: float = 0.0) -> Beside:
    """The latent of "source", grey where "mask" hides it, and the "holes" of that mask; what is known is kept, pixel by pixel.

    fill, low: 0.5 and 0 are Stable Diffusion's, whose network has beside=("holes", "source"); the inpainting model of Rombach et
    al., 2022, has ("source", "holes") with holes that are black, fill 0, and masks in [-1, 1], low -1.
    """
    seen = (into("source", pixels(0.0, 1.0)), filled("source", "mask", fill), into("source", codec))
    row = (hidden("mask", "image", masks.inpainted), made("source", "image", same), applied("source", same, to="known"), *seen,
           applied("mask", Holes(factor, low), to="holes"))  # fmt: skip
    return Beside(row, pasted(codec, "known", "mask"))


def enlarging(codec: Codec, factor: int, by: int = 4, most: float | None = None, level: float = 0.0, betas: Any = "linear",
              steps: int = 1000) -> Beside:  # fmt: skip
    """The picture "low", `by` times smaller than the image, for a network with beside=("low",).

    With `most` it has noise, in training of a level up to that on a chain of its own, `betas`, and in sampling of `level`, as a
    share of its `steps`; the network is told its number as the label, as Stable Diffusion's x4 model is.
    """
    row = (made("low", "image", shrink(by)), into("low", pixels()))
    if most is None:
        return Beside(row, codec)
    chain = schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    told = applied("low_level", Index(steps), to="label", stays=False)
    return Beside((*row, augmented("low", Gaussian(chain), most, level), told), codec)


def labelling(codec: Codec, factor: int, field: str = "mask", classes: int = 182, features: int = 3) -> Beside:
    """A map of labels, (B, H, W), the `field` of the data, as `features` beside the latent; the network has beside=(field,)."""
    return Beside((encoded(field, Net(LabelMap(classes, factor, features), Learned("map"))),), codec)


PROBLEMS = {"inpainting": inpainting, "enlarging": enlarging, "labelling": labelling}
"""What stands beside a latent."""


def build(first_stage: Any = None, text: Any = None, problem: Any = None, steps: int = 1000,
          betas: Any = "scaled_linear(0.00085,0.012)", transforms: Any = None, parameterization: Any = "epsilon",
          weighting: Any = "snr", variance: Any = "posterior", share: float = 0.001, spacing: str = "leading", offset: int = 0,
          last: str = "clean", draws: int = 50, grid: Any = None, solver: Any = "ancestral", clip: bool = False, kept: bool = False,
          scale: Any = None, shift: Any = None, drawn: bool = True, tile: int | None = None, tokens: int = 30522,
          text_layers: int = 32, text_heads: int = 8, empty: Sequence[int] = (0,), label_dropout: float = 0.1,
          network: str = "stable", **options) -> System:  # fmt: skip
    """Latent diffusion of images in [0, 1]; the defaults are the released models' (Rombach et al., 2022, app. E, and code).

    - first_stage: a run of `first_stage`, or the codec of others' autoencoder, frozen; None for pixels in [-1, 1].
    - text: a text encoder, frozen: tokens (B, L) -> (B, L, D), which a network with a `text_width` looks at. The field "caption" is
      the text; "negative" another one in the place of none, by default of the tokens `empty`, (L,) or one for all places.
      Without one it is trained with the model: a transformer of `tokens` numbers, `text_layers` layers and `text_heads` heads.
    - problem: what stands beside the latent, one of `PROBLEMS`.
    - steps, betas, transforms, parameterization, weighting, variance: as in `ddpm`. Where the network learns the variance, as in
      "interpolated", the bound has this `share` of the loss, see `iddpm`.
    - draws, spacing, offset, last: of the walk, see `grids.discrete`; or another `grid`, and the `solver`, by name.
    - clip, kept: whether the estimate is clipped to [-1, 1], as pixels are, and how a step goes on, see `static_threshold`.
    - scale, shift, drawn, tile: of the latent, see `codecs.latents`; scale and shift None as the codec has them, and of a run as
      training measures them.
    - label_dropout: how often training takes the text "negative", or a network's own null of a label, for what is given.
    - network: one of `networks.names()`, whose fields further keywords are.

    Raises ValueError for a text encoder at whose text the network does not look.
    """
    clock = clocks.chain(steps, spacing, offset, last)
    chain = schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    chain = schedules.transformed(chain, transforms, first=1 / steps)
    process = Gaussian(chain, make("variance", variance, processes.VARIANCES, schedule=chain, steps=steps))
    learned = hasattr(process.variance, "learned")
    made = networks.named(network)(**({"variance": True} if learned else {}), **options)
    simple = objectives.denoising(process, make("weighting", weighting, public(weightings), schedule=chain), clock.times)
    f = make("parameterization", parameterization, public(parameterizations))
    space = _space(first_stage, {"scale": scale, "shift": shift}, {"drawn": drawn, "tile": tile})
    beside = Beside((), space)
    if problem is not None:
        beside = make("problem", problem, PROBLEMS, codec=space, factor=getattr(space, "factor", 1))
    looks = "text" in (reads(Net(made, {})) or {})
    if looks and text is None:
        text = Net(T5(made.text_width, text_layers, text_heads, 64, 4 * made.text_width, tokens), Learned("text"))
    return System(
        network=made, process=process, parameterization=conditioned(f, clock.label),
        objective=hybrid(simple, objectives.elbo(process, steps), share, process, clock.times) if learned else simple,
        solver=make("solver", solver, SOLVERS, process=process, schedule=chain),
        grid=clock.grid if grid is None else make("grid", grid, public(grids)), steps=draws,
        codec=beside.codec, given=_given(made, text, beside.parts, empty, label_dropout),
        guidance=(static_threshold(kept=kept),) if clip else (),
    )  # fmt: skip


def _space(first_stage: Any, numbers: dict[str, Any], how: dict[str, Any]) -> Codec:
    stated = {name: value for name, value in numbers.items() if value is not None}
    if first_stage is None:
        if stated:
            raise ValueError(f"{' and '.join(stated)} are of the latents of a first_stage, and there is none")
        return pixels()
    if hasattr(first_stage, "latents"):  # a run
        return first_stage.latents(**how, **numbers)
    if not isinstance(first_stage, Codec):
        raise ValueError(f"a first_stage is a run of one or a codec, got a {type(first_stage).__name__}")
    return first_stage.replace(**how, **stated)


def _given(network: Any, text: Any, beside: Sequence[Part], empty: Sequence[int], dropout: float) -> Given:
    looked = reads(Net(network, {})) or {}
    by_parts = ("text", "text_mask", "null_text", *given(*beside).gives)
    names = [name for name in looked if name not in by_parts]
    nulls = getattr(network, "nulls", names)
    if text is None:
        return given(*names, *beside, *((dropped(dropout),) if nulls else ()))
    if "text" not in looked:
        raise ValueError(f"a text encoder was given, and the network {type(network).__name__} looks at no text")
    if not isinstance(text, Net):
        raise ValueError(f"a text encoder is a Net, got a {type(text).__name__}")
    if hasattr(text.module, "only"):
        text = text.replace(module=text.module.clone(only="hidden"))
    return given(*names, *beside, worded("caption", "negative", text, tuple(empty)), dropped(dropout))

"""Palette: Image-to-Image Diffusion Models (Saharia et al., 2022).

Colorization, inpainting, uncropping and the restoration of JPEGs by one recipe, SR3's with the squared error: the picture to be
restored, "source", stands beside x. Problems differ in what training makes of an image, and in what is asked for of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import struct

from diffux import objectives
from diffux.codecs import Codec, pasted, pixels, residual
from diffux.conditions import Given, applied, covered, degraded, filled, given, hidden, into, made
from diffux.degradations import greyed, harmonic_fill, jpeg, masks, qualities
from diffux.naming import make, pick
from diffux.systems import sr3
from diffux.systems.system import System
from diffux.types import part


@struct.dataclass
class Problem:
    """What is asked of a model: the row that makes "source", what is decoded, and the condition, if any, that the loss is of."""

    given: Given
    codec: Codec = pixels()
    mask: str | None = struct.field(pytree_node=False, default=None)


@part
def same(x):
    """x as it is."""
    return x


@part
def others(known):
    """The pixels that are not known."""
    return ~known


def space(scale: float | None) -> Codec:
    """Pixels, or what the source lacks of them, times `scale`."""
    return pixels() if scale is None else residual("source", scale)


def colorization(scale: float | None = None) -> Problem:
    """The source is the image in grey, in all three channels."""
    return Problem(given(made("source", "image", greyed), into("source", pixels())), space(scale))


def restoration(scale: float | None = None) -> Problem:
    """The source is the image as a JPEG of a quality in (5, 30), low ones more often."""
    return Problem(given(degraded("source", "image", jpeg, qualities), into("source", pixels())), space(scale))


def completion(law: Callable, fill: str = "noise", scale: float | None = None) -> Problem:
    """The source is the image with a `fill` where `law` hides it, "noise" as in the paper or "harmonic", and nothing of what was
    there; the loss is of those pixels, and samples keep the others."""
    row = given(
        hidden("mask", "image", law),
        covered("source", "image", "mask"),
        applied("source", same, to="known"),
        applied("mask", others, to="wanted"),
        into("source", pixels()),
        filled("source", "mask", pick("fill", fill, FILLS)),
    )
    return Problem(row, pasted(space(scale), "known", "mask"), "wanted")


def inpainting(fill: str = "noise", scale: float | None = None) -> Problem:
    """`completion` of free-form strokes, or of rectangles that cover 10 to 40 %."""
    return completion(masks.inpainted, fill, scale)


def uncropping(fill: str = "noise", scale: float | None = None) -> Problem:
    """`completion` of half of the image, at one side or at all four."""
    return completion(masks.uncropped, fill, scale)


FILLS = {"noise": None, "harmonic": harmonic_fill}
PROBLEMS = {"colorization": colorization, "inpainting": inpainting, "uncropping": uncropping, "jpeg": restoration}


def build(problem: Any = "inpainting", over: str = "wanted", steps: int = 2000, betas: Any = "linear(2e-6, 0.02)",
          norm: str = "squared", variance: Any = "upper", clip: bool = False, draws: int = 1000, grid: Any = "betas(1e-4, 0.09)",
          parameterization: Any = "epsilon", weighting: Any = "snr", network: str = "palette_256",
          **options) -> System:  # fmt: skip
    """Palette for images in [0, 1]; the defaults are those of the paper, at 256 pixels (Saharia et al., 2022, sec. 3 and 4).

    - problem: one of `PROBLEMS`, or a `Problem`. A request gives "source", the picture, and for inpainting and uncropping "mask",
      which is 1 where pixels are known. "inpainting(fill=harmonic)" fills holes smoothly, and not with noise, and of every problem
      a `scale`, "jpeg(scale=1)", makes that which is diffused the residual to the source, times the scale, as in `srdiff`: a short
      training learns neither colours nor smoothness otherwise.
    - over: what a masked loss is divided by, the number of the "wanted" values of an image or of "all" of them; the paper does not
      say which. Without a mask they are the same.
    - norm: of the error of the noise, "squared" (the paper's choice) or "absolute", which gives less diverse samples.
    - steps, betas, variance, clip, draws, grid, parameterization, weighting: as in `sr3`. Ports of Palette have the variance
      "posterior", and clip.
    - network: one with pictures beside x, "palette_256", or "unet", "adm" or "ncsnpp" of your own size, whose fields further
      keywords are.

    Raises ValueError for another problem, `over` or norm.
    """
    asked = make("problem", problem, PROBLEMS)
    system = sr3.build(steps=steps, betas=betas, norm=norm, variance=variance, clip=clip, draws=draws, grid=grid,
                       parameterization=parameterization, weighting=weighting, network=network,
                       **{"beside": ("source",)} | options)  # fmt: skip
    loss = system.objective
    masked = objectives.denoising(loss.process, loss.weighting, loss.times, loss.norm, asked.mask, over)
    return system.replace(given=asked.given, codec=asked.codec, objective=masked)

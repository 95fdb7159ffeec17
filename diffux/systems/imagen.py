"""Imagen: Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022).

Diffusion in continuous time, given the features of a text by an encoder of texts alone; models that enlarge are given the smaller
picture with noise, of whose level they are told. Guidance may be strong, since the guided estimate is thresholded dynamically.
"""

from __future__ import annotations

from typing import Any

from flax import struct

from diffux import clocks, networks, objectives, parameterizations, processes, schedules, times, weightings
from diffux.codecs import pixels
from diffux.conditions import applied, augmented, dropped, encoded, given, into, made
from diffux.guidance import dynamic_threshold, static_threshold
from diffux.naming import accepts, make, pick, public
from diffux.networks.t5 import T5
from diffux.operators import rescale, shrink
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System
from diffux.types import Learned, Net

SCHEDULES = {"cosine": schedules.cosine, "linear": schedules.linear}
THRESHOLDS = {"dynamic_threshold": dynamic_threshold, "static_threshold": static_threshold}


@struct.dataclass
class There:
    """Which tokens (B, L) are not the one that fills up."""

    padding: Any

    def __call__(self, tokens):
        return tokens != self.padding


@struct.dataclass
class Words:
    """Tokens (B, L) -> the features of a text encoder (B, L, D), which is told which of them are there where it asks for that."""

    net: Net
    padding: Any
    masked: bool = struct.field(pytree_node=False)

    def __call__(self, tokens):
        return self.net(tokens, tokens != self.padding) if self.masked else self.net(tokens)


def build(text: Any = None, enlarges: int | None = None, most: float | None = 1.0, level: float = 0.2, schedule: str = "cosine",
          parameterization: Any = "epsilon", weighting: Any = "snr", variance: Any = "posterior", draws: int = 256,
          threshold: Any = "dynamic_threshold(0.995)", text_dropout: float = 0.1, padding: int = 0, tokens: int = 32128,
          text_width: int = 4096, text_layers: int = 2, text_heads: int = 4, network: str = "imagen_64",
          **options) -> System:  # fmt: skip
    """Imagen for images in [0, 1] and the field "caption"; the defaults are the model of 64 pixels (Saharia et al., 2022, sec. 2
    and app. F).

    - text: an encoder of texts, frozen: tokens (B, L) -> (B, L, text_width), such as T5's. Without one a small T5 of `tokens`
      words, `text_layers` layers and `text_heads` heads is trained with the model. padding: the token that fills up, which is not
      looked at.
    - enlarges: the factor of a model that is given the field "low" besides; the published ones, of 4, have
      network="imagen_up_256", or "imagen_up_1024" with schedule="linear". Training enlarges it and adds noise of a level t uniform
      on [0, `most`] of the model's own schedule, sampling of `level`, unless a request or a cascade says another; the network is
      told. most None adds none.
    - schedule: "cosine" or "linear", in continuous time, uniform on [0, 1].
    - parameterization, weighting: as in `sr3`; the paper predicts the noise, and "v" learns faster. variance, draws: of the walk.
    - threshold: of the estimate, after guidance, "dynamic_threshold" or "static_threshold".
    - text_dropout: how often training takes zeros for the text.
    - network: one that reads a text; further keywords are its fields.
    """
    law = pick("schedule", schedule, SCHEDULES)()
    process = Gaussian(law, make("variance", variance, processes.VARIANCES, schedule=law, steps=draws))
    clock = clocks.continuous(999.0, draws, times=times.uniform())
    if text is None:
        text = Net(T5(text_width, text_layers, text_heads, 64, 4 * text_width, tokens), Learned("text"))
    words = Words(text, padding, "mask" in accepts(type(text.module).__call__)[0])
    larger = {} if enlarges is None else {"beside": ("low",), "numbers": () if most is None else ("low_level",)}
    noise = () if most is None else (augmented("low", Gaussian(law), most, level),)
    low = () if enlarges is None else (made("low", "image", shrink(enlarges, "area")), into("low", pixels()),
                                       applied("low", rescale(enlarges, "linear")), *noise)  # fmt: skip
    f = make("parameterization", parameterization, public(parameterizations))
    return System(
        network=networks.named(network)(**{"text_width": text_width} | larger | options),
        process=process,
        parameterization=conditioned(f, clock.label),
        objective=objectives.denoising(process, make("weighting", weighting, public(weightings), schedule=law), clock.times),
        solver=ancestral(process), grid=clock.grid, steps=draws,
        given=given(applied("caption", There(padding), to="text_mask"), encoded("caption", words, ("text",)),
                    dropped(text=text_dropout), *low),
        guidance=(make("threshold", threshold, THRESHOLDS),),
    )  # fmt: skip

"""Latent diffusion (Rombach et al., 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"), with Stable Diffusion.

A discrete chain in the latents of a first stage that was trained before, or in pixels, with a network that may look at a text. The
names and defaults are those of the released models, so that their weights are read as runs of this system (`pretrained`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffux import clocks, grids, networks, objectives, parameterizations, processes, schedules, solvers, weightings
from diffux.codecs import Codec, pixels
from diffux.conditions import Given, dropped, encoded, given, instead
from diffux.guidance import static_threshold
from diffux.naming import make, public
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.systems.system import System
from diffux.types import Net, reads

SOLVERS = {name: getattr(solvers, name) for name in ("ancestral", "ddim", "plms", "euler", "euler_ancestral", "dpm_solver_pp_2m",
                                                     "dpm_solver", "heun", "unipc", "lms", "deis")}  # fmt: skip


def build(first_stage: Any = None, text: Any = None, steps: int = 1000, betas: Any = "scaled_linear(0.00085,0.012)",
          transforms: Any = None, parameterization: Any = "epsilon", weighting: Any = "snr", variance: Any = "posterior",
          spacing: str = "leading", offset: int = 0, last: str = "clean", draws: int = 50, grid: Any = None,
          solver: Any = "ancestral", clip: bool = False, kept: bool = False, scale: Any = None, shift: Any = None,
          drawn: bool = True, empty: Sequence[int] = (0,), label_dropout: float = 0.1, network: str = "stable",
          **options) -> System:  # fmt: skip
    """Latent diffusion of images in [0, 1]; the defaults are the released models' (Rombach et al., 2022, app. E, and code).

    - first_stage: a run of `first_stage`, or the codec of others' autoencoder, frozen; None for pixels in [-1, 1].
    - text: a text encoder, frozen: tokens (B, L) -> (B, L, D), which a network with a `text_width` looks at. The field "caption" is
      the text; "negative" another one in the place of none, by default of the tokens `empty`, (L,) or one for all places.
    - steps, betas, transforms, parameterization, weighting, variance: as in `ddpm`.
    - draws, spacing, offset, last: of the walk, see `grids.discrete`; or another `grid`, and the `solver`, by name.
    - clip, kept: whether the estimate is clipped to [-1, 1], as pixels are, and how a step goes on, see `static_threshold`.
    - scale, shift, drawn: of the latent, see `codecs.latents`; None as the codec has them, and 1 and 0 of a run.
    - label_dropout: how often training takes the text "negative", or a network's own null of a label, for what is given.
    - network: one of `networks.names()`, whose fields further keywords are.

    Raises ValueError for a network that looks at a text without an encoder, and the other way round.
    """
    made = networks.named(network)(**options)
    clock = clocks.chain(steps, spacing, offset, last)
    chain = schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    chain = schedules.transformed(chain, transforms, first=1 / steps)
    process = Gaussian(chain, make("variance", variance, processes.VARIANCES, schedule=chain, steps=steps))
    f = make("parameterization", parameterization, public(parameterizations))
    return System(
        network=made, process=process, parameterization=conditioned(f, clock.label),
        objective=objectives.denoising(process, make("weighting", weighting, public(weightings), schedule=chain), clock.times),
        solver=make("solver", solver, SOLVERS, process=process, schedule=chain),
        grid=clock.grid if grid is None else make("grid", grid, public(grids)), steps=draws,
        codec=_space(first_stage, {"scale": scale, "shift": shift}, drawn),
        given=_given(made, text, empty, label_dropout), guidance=(static_threshold(kept=kept),) if clip else (),
    )  # fmt: skip


def _space(first_stage: Any, numbers: dict[str, Any], drawn: bool) -> Codec:
    stated = {name: value for name, value in numbers.items() if value is not None}
    if first_stage is None:
        if stated:
            raise ValueError(f"{' and '.join(stated)} are of the latents of a first_stage, and there is none")
        return pixels()
    if hasattr(first_stage, "latents"):  # a run
        return first_stage.latents(drawn=drawn, **stated)
    if not isinstance(first_stage, Codec):
        raise ValueError(f"a first_stage is a run of one or a codec, got a {type(first_stage).__name__}")
    return first_stage.replace(drawn=drawn, **stated)


def _given(network: Any, text: Any, empty: Sequence[int], dropout: float) -> Given:
    looked = reads(Net(network, {})) or {}
    looks = "text" in looked
    if looks is (text is None):
        raise ValueError("a network that looks at a text has an encoder of it, `text`, and no other has" if text is None else
                         f"a text encoder was given, and the network {type(network).__name__} looks at no text")  # fmt: skip
    names = [name for name in looked if name not in ("text", "text_mask", "null_text")]
    if text is None:
        return given(*names, *((dropped(dropout),) if getattr(network, "nulls", names) else ()))
    if not isinstance(text, Net):
        raise ValueError(f"a text encoder is a Net, got a {type(text).__name__}")
    if hasattr(text.module, "only"):
        text = text.replace(module=text.module.clone(only="hidden"))
    parts = (encoded("caption", text, ("text",)), instead("negative", "caption", text, "null_text", tuple(empty)))
    return given(*names, *parts, dropped(dropout))

"""CDM: Cascaded Diffusion Models for High Fidelity Image Generation (Ho et al., 2022).

Each stage is improved DDPM on ADM's network. A stage that enlarges is given the smaller image beside x, which training spoils:
by noise, of whose level the network is told, or by blur. The task `cascade` draws the stages one after the other.
"""

from __future__ import annotations

from diffux.codecs import pixels
from diffux.conditions import applied, augmented, blurred, into, made
from diffux.naming import pick
from diffux.operators import rescale, shrink
from diffux.processes import Gaussian
from diffux.systems import iddpm
from diffux.systems.system import System


def build(enlarges: int = 2, most: float | None = 1.0, level: float = 0.0, blur: float = 0.0, noised: str = "small",
          steps: int = 4000, classes: int | None = 1000, kernel: str = "area", network: str = "adm",
          **options) -> System:  # fmt: skip
    """A stage that enlarges images in [0, 1], given the field "low"; the first stage is `iddpm` (Ho et al., 2022).

    - enlarges: the factor between the sides. Training makes "low" of the image, by `operators.shrink` with `kernel`.
    - most: noise of a level t uniform on [0, `most`] of the stage's own schedule is added to "low" in training; None adds none.
    - level: the noise that samples are given, unless a request or the cascade says another "low_level".
    - blur: the share of the small images that training blurs; samples are given none.
    - noised: where the noise is added, to the "small" image (CDM), or to the "large" one that it is enlarged to (Imagen).

    Further keywords go to `iddpm`, whose steps are told as their share of the chain, and to the network.
    Raises ValueError for another place of the noise.
    """
    beside = {"beside": ("low",), "numbers": () if most is None else ("low_level",)}
    system = iddpm.build(steps, classes=classes, network=network, **beside | options)
    enlarged = pick("place of the noise", noised, {"small": (), "large": (applied("low", rescale(enlarges, "linear")),)})
    noise = () if most is None else (augmented("low", Gaussian(system.process.schedule), most, level),)
    soft = (blurred("low", share=blur),) if blur else ()
    low = (made("low", system.data, shrink(enlarges, kernel)), into("low", pixels()), *soft, *enlarged, *noise)
    return system.replace(given=system.given.replace(parts=(*system.given.parts, *low)))

"""ADM: Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021).

Improved DDPM on a larger network with adaptive group normalisation, guided by a classifier of noisy images: the system
`noisy_classifier` on the network "adm_classifier_64", with the same schedule and steps. A second model enlarges its images.
"""

from __future__ import annotations

from typing import Any

from diffux.codecs import pixels
from diffux.conditions import into, made
from diffux.operators import average_pool
from diffux.systems import iddpm
from diffux.systems.system import System


def build(steps: int = 1000, betas: Any = "linear", network: str = "adm_256", classes: int | None = 1000,
          enlarges: int | None = None, **options) -> System:  # fmt: skip
    """ADM for images in [0, 1]; the defaults are the class-conditional ImageNet 256 model (Dhariwal and Nichol, 2021, app. I).

    - betas: "linear", or "cosine" as at 64 pixels.
    - network: "adm_64", "adm_128", "adm_256", "adm_512", or "adm" of your own size.
    - classes: None for an unconditional model.
    - enlarges: by how much the model enlarges images: it is given the smaller one as "low", which training makes of the image by
      averages. "adm_u_256" does so by 4.

    Further keywords go to `iddpm` and to the network. As in the authors' code the network is told the index of the step, and the
    bound has 1 / steps of the loss.
    """
    options |= {} if enlarges is None else {"beside": ("low",)}
    system = iddpm.build(steps, betas, share=1 / steps, told="index", network=network, classes=classes, **options)
    low = () if enlarges is None else (made("low", system.data, average_pool(enlarges)), into("low", pixels()))
    return system.replace(given=system.given.replace(parts=(*system.given.parts, *low)))

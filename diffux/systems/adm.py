"""ADM: Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021).

Improved DDPM on a larger network with adaptive group normalisation, guided by a classifier of noisy images: the system
`noisy_classifier` with the network "adm_classifier_64" and the same schedule and steps.
"""

from __future__ import annotations

from typing import Any

from diffux.systems import iddpm
from diffux.systems.system import System


def build(steps: int = 1000, betas: Any = "linear", network: str = "adm_256", classes: int | None = 1000, **options) -> System:
    """ADM for images in [0, 1]; the defaults are the class-conditional ImageNet 256 model (Dhariwal and Nichol, 2021, app. I).

    - betas: "linear", or "cosine" as at 64 pixels.
    - network: "adm_64", "adm_128", "adm_256", "adm_512", or "adm" of your own size; `low` in the networks "adm_u_256" and
      "adm_u_512" is a field of the data, the smaller image.
    - classes: None for an unconditional model.

    Further keywords go to `iddpm` and to the network. As in the authors' code the network is told the index of the step, and the
    bound has 1 / steps of the loss.
    """
    return iddpm.build(steps, betas, share=1 / steps, told="index", network=network, classes=classes, **options)

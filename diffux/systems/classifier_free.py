"""Classifier-free guidance: Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).

One network with and without its label, which training drops now and then; continuous time, uniform in the angle of a truncated
cosine schedule. Samples are guided by `--guidance 1.3`, the scale 1 + w of the paper's w = 0.3.
"""

from __future__ import annotations

from diffux import clocks, networks, objectives, parameterizations, processes, schedules, times, weightings
from diffux.conditions import labelled
from diffux.guidance import static_threshold
from diffux.parameterizations import conditioned, epsilon
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System


def build(classes: int | None = 1000, label_dropout: float = 0.1, log_snr_min: float = -20.0, log_snr_max: float = 20.0,
          towards_upper: float = 0.3, steps: int = 256, clip: bool = True, network: str = "adm", **options) -> System:  # fmt: skip
    """A model to be guided without a classifier, for images in [0, 1]; the defaults are those of ImageNet 64 (Ho and Salimans,
    2022, sec. 4).

    - label_dropout: how often training drops the label; 0.1 and 0.2 did best.
    - log_snr_min, log_snr_max: where the cosine schedule is cut off.
    - towards_upper: the share of the larger variance in the reverse one, see `processes.geometric_mean`.
    - clip: clip the guided x_0 to [-1, 1].
    - network: of `networks.names()`; further keywords are its fields. It is told the log-SNR.
    """
    schedule = schedules.cosine(log_snr_min, log_snr_max)
    process = Gaussian(schedule, processes.geometric_mean(towards_upper))
    clock = clocks.continuous(parameterizations.log_snr, steps, smallest=0.0, end=None, times=times.uniform(0.0, 1.0))
    return System(
        network=networks.named(network)(classes=classes, **options),
        process=process,
        parameterization=conditioned(epsilon, clock.label),
        objective=objectives.denoising(process, weightings.snr, clock.times),
        solver=ancestral(process), grid=clock.grid, steps=clock.steps,
        given=labelled(classes, label_dropout),
        guidance=(static_threshold(),) if clip else (),
    )  # fmt: skip

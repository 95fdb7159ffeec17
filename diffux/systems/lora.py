"""LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021), of a trained diffusion model.

The weights stay as they are; what is trained is an update of low rank of some of the network's layers.
"""

from __future__ import annotations

from typing import Any

from diffux.adapted import Adapted
from diffux.networks.low_rank import TARGETS, LowRank
from diffux.systems.system import System
from diffux.types import Learned, Net


def build(base: Any, low: Any = None, rank: int = 4, targets: str = TARGETS, scale: float = 1.0) -> System:
    """A trained model with low-rank updates of its layers (Hu et al., 2021, sec. 4): W x + `scale` B A x, with B = 0 at first.

    - base: a run of a diffusion system or a pipeline of others, frozen: `nets: {"base": DIR}` of a config. Data, losses, walks and
      conditions are its own.
    - low: others' updates, a file that `pretrained.peft` reads, frozen; None, and they are trained, as the only parameters.
    - rank: of each update. targets: which layers have one, a pattern of their paths, by default all of the attentions.
    - scale: alpha / rank of the paper, whose alpha is the rank here; 0 is the model as it was.

    Raises ValueError for a base that is no diffusion model, a rank below 1, and a pattern that finds no layer.
    """
    if not isinstance(base, System) or not isinstance(base.network, Net):
        raise ValueError(f"low-rank updates are of a run of a diffusion system, got a {type(base).__name__}")
    if rank < 1:
        raise ValueError(f"the rank of an update is at least 1, got {rank}")
    if low is None:
        net = Net(LowRank(rank, targets), Learned("network"))
    elif hasattr(low, "of"):
        net = low.of(base.network)
    else:
        raise ValueError(f"low is a file of low-rank updates, got a {type(low).__name__}")
    return base.replace(network=Adapted(base.network, net, scale))

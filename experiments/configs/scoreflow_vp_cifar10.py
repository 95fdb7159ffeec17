"""ScoreFlow on CIFAR-10: DDPM++ and the VP SDE, trained for likelihood (Song, Durkan, Murray and Ermon, 2021b).

  diffux train --config scoreflow_vp_cifar10 --workdir runs/scoreflow

The weighting g^2 with importance-sampled times, on uniformly dequantised images; the rest is score_sde_vp_cifar10, and
it was not trained here. Published: 2.83 bits a dimension with variational dequantisation.
"""

import score_sde_vp_cifar10


def get_config():
    config = score_sde_vp_cifar10.get_config()
    config.system.likelihood_weighting = True
    config.data.dequantize = True
    return config

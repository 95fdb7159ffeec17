"""DDPM++ on CIFAR-10 with the continuous sub-VP SDE (Song et al., 2021, section 4.4 and appendix H).

  diffux train --config score_sde_sub_vp_cifar10 --workdir runs/sub_vp_cifar10

As score_sde_vp_cifar10, and not trained here either. Published: Frechet inception distance 2.61, inception score 9.56,
3.16 by the probability flow, 3.02 bits a dimension; with `--config.system.blocks=8 --config.steps=950000` (deep) 2.41,
9.57, 2.92 and 2.99.
"""

import score_sde_vp_cifar10


def get_config():
    config = score_sde_vp_cifar10.get_config()
    config.system.sde = "sub_vp"
    return config

"""NCSN++ on CIFAR-10 with the continuous VE SDE (Song et al., 2021, section 4.4 and appendix H).

  diffux train --config score_sde_ve_cifar10 --workdir runs/ve_cifar10

1,300,000 steps of batch 128: made for an accelerator and not trained here. CIFAR-10 must have been prepared once; the
error says how where it was not. Published: Frechet inception distance 2.38 and inception score 9.83 with 1,000
predictor-corrector steps (best checkpoint); with `--config.system.blocks=8 --config.steps=950000` (deep) 2.20 and 9.89;
with `--config.system.discrete=1000`, trained on 1,000 sigmas only, 2.45 and 9.73.
"""

import score_sde_vp_cifar10


def get_config():
    config = score_sde_vp_cifar10.get_config()
    config.system.sde = "ve"
    config.system.network = "ncsnpp"
    config.ema.decay = 0.999
    return config

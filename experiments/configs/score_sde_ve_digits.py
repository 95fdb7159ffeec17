"""Score SDE on 8x8 handwritten digits: the VE SDE, by reverse diffusion with Langevin corrections.

  python experiments/train.py --config experiments/configs/score_sde_ve_digits.py --workdir runs/ve_digits
  python experiments/evaluate.py --workdir runs/ve_digits

MEASURED
"""

import score_sde_vp_digits


def get_config():
    config = score_sde_vp_digits.get_config()
    config.system.sde = "ve"
    config.system.network = "ncsnpp"
    # a little above the largest distance between two digits (Song and Ermon, 2020, technique 1)
    config.system.sigma_max = 6.0
    config.system.normalize = True
    return config

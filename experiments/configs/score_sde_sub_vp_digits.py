"""Score SDE on 8x8 handwritten digits: the sub-VP SDE, whose likelihoods are the best of the three.

  python experiments/train.py --config experiments/configs/score_sde_sub_vp_digits.py --workdir runs/sub_vp_digits
  python experiments/evaluate.py --workdir runs/sub_vp_digits --likelihood

MEASURED
"""

import score_sde_vp_digits


def get_config():
    config = score_sde_vp_digits.get_config()
    config.system.sde = "sub_vp"
    return config

"""DDPM on 8x8 handwritten digits, wider and for longer than ddpm_digits.

python experiments/train.py --config experiments/configs/ddpm_digits_long.py --workdir runs/digits_long
"""

import ddpm_digits


def get_config():
    config = ddpm_digits.get_config()
    config.system.channels = 32
    config.training.steps = 4000
    config.training.sample_every = config.training.checkpoint_every = 1000
    return config

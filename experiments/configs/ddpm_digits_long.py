"""DDPM on 8x8 handwritten digits, wider and for longer than ddpm_digits.

  diffux train --config ddpm_digits_long --workdir runs/digits_long
  diffux evaluate --workdir runs/digits_long --solver ancestral --steps 200

10 minutes on 2 CPU cores that were busy with other work. 512 samples: 97.9 % recognisable, Frechet 0.80, class shares
9.8 to 10.2 %, nearest train 1.92 by ancestral sampling with 200 steps; 98.0 %, 1.13, 1.98 by DDIM with 50 (360 held-out
images: 96.9 %, 0.92, 2.05).
"""

import ddpm_digits


def get_config():
    config = ddpm_digits.get_config()
    config.system.channels = 32
    config.training.steps = 4000
    config.training.sample_every = config.training.checkpoint_every = 1000
    return config

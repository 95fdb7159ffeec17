"""CMDE on patches of photographs: 16x16 colour patches from 8x8 ones, with the small patch noised at a speed of its own.

  diffux train --config cmde_patches --workdir runs/cmde_patches
  diffux evaluate --workdir runs/cmde_patches

With `--config.system.sigma_max_given=0` the small patch is never noised (CDE), with `--config.system.sigma_max_given=27.7` as fast
as the large one (CDiffE), and with `--config.system.falls=600` its largest noise falls from there in the first 600 steps.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "cmde",
            "sigma_max": 27.7,  # the root of 3 16 16
            "sigma_max_given": 0.1,
            "operator": "shrink(2)",
            "parameterization": "edm(0.5)",
            "weighting": "edm(0.5)",
            "steps": 100,
            "network": "unet",
            "channels": 32,
            "multipliers": (1, 2, 2),
            "blocks": 1,
            "attention": (4, 8),
            "dropout": 0.0,
        }
    )
    config.data = ConfigDict({"name": "patches/16_photographs", "batch_size": 64, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 1200, "log_every": 50, "sample_every": 400, "checkpoint_every": 400})
    # None: the system's own walk
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

"""DDPM on 16x16 colour patches of photographs, conditional on the photograph.

  diffux train --config ddpm_patches --workdir runs/patches
  diffux evaluate --workdir runs/patches --solver ancestral --steps 100

About 10 minutes on 2 busy CPU cores (147 images a second). 512 samples, Frechet distance in the features of a classifier of the
source photograph: 8.6 by ancestral sampling with 100 steps, 11.5 by DDIM with 50; a Gaussian of the same pixels: 22.3.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ddpm",
            "steps": 1000,
            "betas": "cosine",
            "parameterization": "v",
            "weighting": "snr_plus_one",
            "channels": 32,
            "multipliers": (1, 2, 2),
            "blocks": 1,
            "attention": (4, 8),
            "dropout": 0.0,
            "classes": 10,
        }
    )
    config.data = ConfigDict({"name": "patches/16", "batch_size": 64, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 1200, "log_every": 50, "sample_every": 400, "checkpoint_every": 400})
    config.sample = ConfigDict({"n": 64, "solver": "ancestral", "steps": 100})
    return config

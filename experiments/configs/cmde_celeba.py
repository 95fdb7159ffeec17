"""CMDE on CelebA at 128x128, 8x super-resolution, with the numbers of Batzolis et al. (2021) and of their code.

  diffux train --config cmde_celeba --workdir runs/cmde_celeba

500,000 steps of batch 25, sampled with 1,000 steps of the predictor and as many of the corrector: made for an accelerator, and
not trained here. CelebA must have been prepared once; the error says how where it was not. The small image has a sigma_max of 0.1
(1 for edges to shoes); with `--config.system.falls=250000` it falls to that from the large one's, the authors' decreasing variance.
With `--config.system.sigma_max_given=221.7` both are noised alike (CDiffE), and with 0 the large image alone (CDE).
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "cmde",
            "sigma_min": 5e-3,
            "sigma_max": 221.7,
            "sigma_max_given": 0.1,
            "factor": 8,
            "snr": 0.15,
            "steps": 1000,
            "network": "unet",
            "channels": 96,
            "multipliers": (1, 1, 2, 2, 3, 3),
            "blocks": 2,
            "attention": (16, 8, 4),
            "dropout": 0.1,
        }
    )
    config.data = ConfigDict({"name": "celeb_a", "size": 128, "batch_size": 25, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-4, "schedule": "constant", "warmup": 2500, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.999})
    config.training = ConfigDict({"steps": 500_000, "log_every": 250, "sample_every": 25_000, "checkpoint_every": 5_000})
    # None: the system's own walk
    config.sample = ConfigDict({"n": 16, "solver": None, "steps": None})
    return config

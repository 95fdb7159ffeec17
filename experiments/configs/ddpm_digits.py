"""DDPM on 8x8 handwritten digits: the first thing to run.

python experiments/train.py --config experiments/configs/ddpm_digits.py --workdir runs/digits
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
            "channels": 24,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (),
            "dropout": 0.0,
            "classes": 10,
        }
    )
    config.data = ConfigDict({"name": "digits", "batch_size": 64})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64, "solver": "ddim", "steps": 50})
    return config

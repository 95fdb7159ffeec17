"""NCSN on 8x8 handwritten digits: geometric noise levels and annealed Langevin dynamics.

  python experiments/train.py --config experiments/configs/ncsn_digits.py --workdir runs/ncsn_digits
  python experiments/evaluate.py --workdir runs/ncsn_digits

115 s on 2 CPU cores, 11 s to the first step. 512 samples by annealed Langevin (24 levels, 10 steps each): 93.9 %
recognisable, Frechet 1.13 (360 held-out images: 96.9 % and 0.92), class shares 8.8 to 10.9 %, nearest train 2.16. By DDIM with
50 steps: 87.3 % and 2.08.

The numbers follow the techniques of Song and Ermon (2020): sigma_max is a little above the largest distance between two
digits (4.8 in [0, 1] pixels), and the ratio of neighbouring levels lets their norms overlap in 64 dimensions.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsn",
            "levels": 24,
            "sigma_min": 0.02,
            "sigma_max": 6.0,
            "step": 0.2,
            "inner": 10,
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
    # None: the system's own solver over all of its levels
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

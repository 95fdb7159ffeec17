"""NCSN on 8x8 handwritten digits: a small RefineNet that is told the noise level's index, and annealed Langevin dynamics.

  python experiments/train.py --config experiments/configs/ncsn_digits.py --workdir runs/ncsn_digits
  python experiments/evaluate.py --workdir runs/ncsn_digits --guidance 1.5

1,500 steps took 13 minutes on 2 CPU cores that were busy with other work (500 to 600 images a second when they are not). Samples by
annealed Langevin: with guidance 1.5 91.4 % recognisable, Frechet 2.6 (256 samples); without 77.9 % and 3.9 (512); with twice the
inner steps (--solver annealed_langevin --option inner=20 --option step=0.1) 79.5 % and 3.1 (360 held-out images: 96.4 %
and 0.9). The run is short for this network, whose papers train for 200,000 steps.

The levels follow Song and Ermon (2020): sigma_max is the largest distance between two digits (4.81 in [0, 1] pixels), the ratio
of neighbouring levels lets half of their noise overlap in 64 dimensions, and the step fits 10 inner steps.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsn",
            "levels": 19,
            "sigma_min": 0.02,
            "sigma_max": 4.8,
            "step": 0.16,
            "inner": 10,
            "channels": 24,
            "multipliers": (1, 2, 2),
            "dilations": (2,),
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

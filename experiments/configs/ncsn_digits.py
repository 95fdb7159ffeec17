"""NCSN on 8x8 handwritten digits: a small RefineNet that is told the noise level's index, and annealed Langevin dynamics.

  diffux train --config ncsn_digits --workdir runs/ncsn_digits
  diffux evaluate --workdir runs/ncsn_digits

5,000 steps: 17 minutes on 2 CPU cores that were busy with other work (270 to 430 images a second; 500 to 600 when they are not).
512 samples by annealed Langevin: 87.3 % recognisable, Frechet 2.03, class shares 9.4 to 10.9 %, nearest train 2.45 (360
held-out images: 96.4 %, 0.90, 2.05). After 1,500 steps it was 77.9 % and 3.9, and with guidance 1.5 (`--guidance`) 91.4 % and 2.6.

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
    config.ema = ConfigDict({"decay": 0.999})
    config.training = ConfigDict({"steps": 5000, "log_every": 50, "sample_every": 1250, "checkpoint_every": 1250})
    # None: the system's own solver over all of its levels
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

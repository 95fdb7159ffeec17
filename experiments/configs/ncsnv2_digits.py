"""NCSNv2 on 8x8 handwritten digits: a small RefineNet that is not told the noise, and annealed Langevin dynamics.

  python experiments/train.py --config experiments/configs/ncsnv2_digits.py --workdir runs/ncsnv2_digits
  python experiments/evaluate.py --workdir runs/ncsnv2_digits

5,000 steps: 13 minutes on 2 CPU cores that were busy with other work. 512 samples by annealed Langevin: 85.4 % recognisable,
Frechet 2.40, class shares 8.4 to 10.9 %, nearest train 2.46 (360 held-out images: 96.4 %, 0.90, 2.05). After 1,500 steps it
was 55 % and 12: the network has to find the noise level in x itself.

The levels are those of `ncsnv2.choose(images, sigma_min=0.02, inner=10)`, rounded.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsnv2",
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

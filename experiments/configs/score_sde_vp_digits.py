"""Score SDE on 8x8 handwritten digits: the VP SDE in continuous time, for samples and exact likelihoods.

  python experiments/train.py --config experiments/configs/score_sde_vp_digits.py --workdir runs/vp_digits
  python experiments/evaluate.py --workdir runs/vp_digits
  python experiments/evaluate.py --workdir runs/vp_digits --likelihood

MEASURED
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "score_sde",
            "sde": "vp",
            "network": "ddpmpp",
            "steps": 200,
            "channels": 24,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (),
            "dropout": 0.0,
            "classes": 10,
        }
    )
    # the digits have 17 levels: uniform noise between them makes a density, whose bits a dimension are those of the levels
    config.data = ConfigDict({"name": "digits", "batch_size": 64, "dequantize": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    # None: the system's own walk
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

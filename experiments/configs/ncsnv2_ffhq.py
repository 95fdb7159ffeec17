"""NCSNv2 on faces at 256x256 with the numbers of Song and Ermon (2020), appendix B, and of their code.

  python experiments/train.py --config experiments/configs/ncsnv2_ffhq.py --workdir runs/ncsnv2_ffhq \
      --config.data.name=folder:/path/to/ffhq

80,000 steps of batch 32, 94.1 million parameters, sampled with 2311 levels of 3 Langevin steps: made for accelerators, and not
trained here; the paper shows samples and no score.

The code's Adam has eps 1e-3 for a loss that sums over the 196,608 dimensions and halves; ours is a mean, so that the same
update has eps 1e-3 * 2 / 196608.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsnv2",
            "levels": 2311,
            "sigma_min": 0.01,
            "sigma_max": 348.0,
            "step": 0.009,
            "inner": 3,
            "channels": 128,
            "multipliers": (1, 2, 2, 2, 4, 4),
            "dilations": (2, 4),
            "remat": True,
        }
    )
    config.data = ConfigDict({"name": "folder:/path/to/ffhq", "batch_size": 32, "size": 256, "flip": True})
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-4,
            "schedule": "constant",
            "warmup": 0,
            "clip": None,
            "options": {"b1": 0.9, "b2": 0.999, "eps": 1.02e-8},
        }
    )
    config.ema = ConfigDict({"decay": 0.999, "warmup": False})
    config.training = ConfigDict(
        {
            "steps": 80_000,
            "log_every": 100,
            "sample_every": 5000,
            "eval_every": 5000,
            "eval_examples": 2048,
            "checkpoint_every": 5000,
        }
    )
    # None: the system's own solver over all of its levels
    config.sample = ConfigDict({"n": 16, "solver": None, "steps": None})
    return config

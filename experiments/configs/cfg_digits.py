"""Classifier-free guidance on 8x8 handwritten digits, to be guided by any scale.

  diffux train --config cfg_digits --workdir runs/cfg
  diffux sample --workdir runs/cfg --guidance 3 --out threes.png --label 3
  diffux evaluate --workdir runs/cfg --guidance 3
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "classifier_free",
            "classes": 10,
            "label_dropout": 0.1,
            "network": "unet",
            "channels": 24,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (),
            "dropout": 0.0,
        }
    )
    config.data = ConfigDict({"name": "digits", "batch_size": 64})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64, "steps": 50})
    return config

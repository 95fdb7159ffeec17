"""Sohl-Dickstein et al. (2015) on MNIST, with the settings of the paper and of its code.

  diffux train --config diffusion2015_mnist --workdir runs/mnist_2015

Made for an accelerator, and not trained here; MNIST must have been prepared once, and the error says how where it was not.
The paper reports a log-likelihood of 317 +- 2.7 bits by Parzen windows over samples, which its authors do not hold comparable
to a bound. The mean and standard deviation are those of the training set in [0, 1], so a bound in bits a dimension of the
standardised pixels is one of pixels in [0, 1] after log2(0.3081) = -1.699 is added.
"""

from ml_collections import ConfigDict


def get_config():
    mean, std = 0.1307, 0.3081
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "diffusion2015",
            "data": "image",
            "kind": "gaussian",
            "steps": 1000,
            "first": 1e-3,
            "codec": f"pixels({-mean / std}, {(1 - mean) / std})",
            "network": "multiscale",
            "scales": 3,
            "convolutions": (20, 20, 20, 20),
            "dense": (500, 500, 500, 500),
            "dense_out": 2,
            "upper": (20, 20),
            "basis": 10,
        }
    )
    config.data = ConfigDict({"name": "mnist", "batch_size": 512, "dequantize": True})
    config.optimizer = ConfigDict({"name": "rmsprop", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 0, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.999})
    config.training = ConfigDict(
        {
            "steps": 500_000,
            "log_every": 100,
            "sample_every": 10_000,
            "eval_every": 10_000,
            "eval_examples": 2048,
            "checkpoint_every": 10_000,
        }
    )
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

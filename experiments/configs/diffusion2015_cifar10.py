"""Sohl-Dickstein et al. (2015) on CIFAR-10, with the settings of the paper and of its code.

  python experiments/train.py --config experiments/configs/diffusion2015_cifar10.py --workdir runs/cifar10_2015

Made for an accelerator, and not trained here; CIFAR-10 must have been prepared once, and the error says how where it was not.
The paper reports K = 5.4 +- 0.2 bits a pixel, 11.5 above the isotropic Gaussian. `mean` and `std` are those of all channels of
the training set in [0, 1]; a bound in bits a dimension of the standardised pixels is one of pixels in 0 .. 255 after
log2(256 * 0.2516) = 6.009 is added.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "diffusion2015",
            "field": "image",
            "kind": "gaussian",
            "steps": 1000,
            "first": 1e-3,
            "mean": 0.4734,
            "std": 0.2516,
            "network": "multiscale",
            "scales": 3,
            "convolutions": (20, 20, 20, 20),
            "dense": (500, 500, 500, 500),
            "dense_out": 2,
            "upper": (20, 20),
            "basis": 10,
        }
    )
    config.data = ConfigDict({"name": "cifar10", "batch_size": 200, "dequantize": True})
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

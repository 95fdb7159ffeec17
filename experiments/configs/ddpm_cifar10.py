"""DDPM on CIFAR-10 with the numbers of Ho et al. (2020), section 4 and appendix B.

  diffux train --config ddpm_cifar10 --workdir runs/cifar10

800,000 steps of batch 128, 35.7 million parameters: made for an accelerator. CIFAR-10 must have been prepared once;
the error says how where it was not. The paper reports a Frechet inception distance of 3.17 (50,000 samples, 1,000
ancestral steps, against the training set).
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ddpm",
            "steps": 1000,
            "betas": "linear",
            "parameterization": "epsilon",
            "weighting": "snr",
            "variance": "upper",
            "channels": 128,
            "multipliers": (1, 2, 2, 2),
            "blocks": 2,
            "attention": (16,),
            "dropout": 0.1,
        }
    )
    config.data = ConfigDict({"name": "cifar10", "batch_size": 128, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-4, "schedule": "constant", "warmup": 5000, "clip": 1.0})
    # The authors' code does not warm the average up; after 800,000 steps it makes no difference.
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict(
        {
            "steps": 800_000,
            "log_every": 100,
            "sample_every": 10_000,
            "eval_every": 10_000,
            "eval_examples": 2048,
            "checkpoint_every": 10_000,
        }
    )
    config.sample = ConfigDict({"n": 64, "solver": "ddim", "steps": 50})
    return config

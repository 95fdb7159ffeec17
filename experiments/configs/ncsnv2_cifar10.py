"""NCSNv2 on CIFAR-10 with the numbers of Song and Ermon (2020), appendix B, and of their code.

  diffux train --config ncsnv2_cifar10 --workdir runs/ncsnv2_cifar10

300,000 steps of batch 128, 29.7 million parameters, sampled with 232 levels of 5 Langevin steps: made for an accelerator, and not
trained here. CIFAR-10 must have been prepared once; the error says how where it was not. The paper reports a Frechet
inception distance of 10.87 and an inception score of 8.40.

Our loss is the mean over dimensions of what the papers sum and halve: Adam's eps of 1e-8 becomes 1e-8 * 2 / 3072.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsnv2",
            "levels": 232,
            "sigma_min": 0.01,
            "sigma_max": 50.0,
            "step": 0.062,
            "inner": 5,
            "channels": 128,
            "multipliers": (1, 2, 2, 2),
            "dilations": (2, 4),
        }
    )
    config.data = ConfigDict({"name": "cifar10", "batch_size": 128, "flip": True})
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-4,
            "schedule": "constant",
            "warmup": 0,
            "clip": None,
            "options": {"b1": 0.9, "b2": 0.999, "eps": 6.5e-12},
        }
    )
    config.ema = ConfigDict({"decay": 0.999, "warmup": False})
    config.training = ConfigDict(
        {
            "steps": 300_000,
            "log_every": 100,
            "sample_every": 5000,
            "eval_every": 5000,
            "eval_examples": 2048,
            "checkpoint_every": 5000,
        }
    )
    # None: the system's own solver over all of its levels
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

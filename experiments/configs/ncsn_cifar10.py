"""NCSN on CIFAR-10 with the numbers of Song and Ermon (2019), appendix B, and of their code.

  diffux train --config ncsn_cifar10 --workdir runs/ncsn_cifar10

200,000 steps of batch 128, 30.1 million parameters, sampled with 10 levels of 100 Langevin steps: made for an accelerator, and not
trained here. CIFAR-10 must have been prepared once; the error says how where it was not. The paper reports an inception
score of 8.87 and a Frechet inception distance of 25.32, without an average of the weights and without a last denoising.

Our loss is the mean over dimensions of what the papers sum and halve: Adam's eps of 1e-8 becomes 1e-8 * 2 / 3072.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ncsn",
            "levels": 10,
            "sigma_min": 0.01,
            "sigma_max": 1.0,
            "step": 0.2,
            "inner": 100,
            "denoise": False,
            "channels": 128,
            "multipliers": (1, 2, 2, 2),
            "dilations": (2, 4),
        }
    )
    config.data = ConfigDict({"name": "cifar10", "batch_size": 128, "flip": True, "dequantize": True})
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-3,
            "schedule": "constant",
            "warmup": 0,
            "clip": None,
            "options": {"b1": 0.9, "b2": 0.999, "eps": 6.5e-12},
        }
    )
    config.ema = ConfigDict({"decay": 0.0})
    config.training = ConfigDict(
        {
            "steps": 200_000,
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

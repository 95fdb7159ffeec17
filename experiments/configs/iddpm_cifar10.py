"""Improved DDPM on CIFAR-10 with the numbers of Nichol and Dhariwal (2021), appendix A, and of their code.

  diffux train --config iddpm_cifar10 --workdir runs/iddpm_cifar10
  diffux train --config iddpm_cifar10 --config.system.loss=bound --workdir runs/iddpm_cifar10_bound

500,000 steps of batch 128: made for an accelerator. The paper reports 3.17 bits a dimension and a Frechet
inception distance of 2.90 with the hybrid loss, and 2.94 and 11.47 with the bound.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "iddpm",
            "steps": 4000,
            "betas": "cosine",
            "loss": "hybrid",
            "share": 0.001,
            "network": "iddpm_32",
        }
    )
    config.data = ConfigDict({"name": "cifar10", "batch_size": 128})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4, "schedule": "constant", "warmup": 0, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999, "warmup": False})
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
    config.sample = ConfigDict({"n": 64, "steps": 250})
    return config

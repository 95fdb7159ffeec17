"""Improved DDPM on ImageNet at 64x64 with the numbers of Nichol and Dhariwal (2021), appendix A, and of their code.

  diffux train --config iddpm_imagenet64 --workdir runs/iddpm_imagenet64
  diffux train --config iddpm_imagenet64 --config.system.loss=bound --workdir runs/iddpm_imagenet64_bound

1,500,000 steps of batch 128: made for an accelerator, and not trained here. The paper reports 3.57 bits a dimension and a Frechet
inception distance of 19.2 with the hybrid loss, and 3.53 and 40.1 with the bound.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict({"name": "iddpm", "network": "iddpm_64", "steps": 4000, "betas": "cosine", "loss": "hybrid"})
    config.data = ConfigDict({"name": "imagenet_resized/64x64", "batch_size": 128})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4, "schedule": "constant", "warmup": 0, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999, "warmup": False})
    config.training = ConfigDict({"steps": 1_500_000, "log_every": 100, "sample_every": 10_000, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 64, "steps": 250})
    return config

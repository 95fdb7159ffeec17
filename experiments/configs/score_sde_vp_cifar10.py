"""DDPM++ on CIFAR-10 with the continuous VP SDE (Song et al., 2021, section 4.4 and appendix H).

  diffux train --config score_sde_vp_cifar10 --workdir runs/vp_cifar10

1,300,000 steps of batch 128, 61.8 million parameters: made for an accelerator and not trained here. CIFAR-10 must have
been prepared once; the error says how where it was not. Published: Frechet inception distance 2.55 and inception
score 9.58 (best checkpoint), 3.93 by the probability flow, 3.16 bits a dimension; with `--config.system.blocks=8
--config.steps=950000` (DDPM++ deep) 2.41, 9.68, 3.08 and 3.13.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 42
    config.system = ConfigDict(
        {
            "name": "score_sde",
            "sde": "vp",
            "network": "ddpmpp",
            "steps": 1000,
            "channels": 128,
            "multipliers": (1, 2, 2, 2),
            "blocks": 4,
            "attention": (16,),
            "dropout": 0.1,
        }
    )
    config.data = ConfigDict({"name": "cifar10", "batch_size": 128, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-4, "schedule": "constant", "warmup": 5000, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict(
        {
            "steps": 1_300_000,
            "log_every": 100,
            "sample_every": 50_000,
            "eval_every": 10_000,
            "eval_examples": 2048,
            "checkpoint_every": 10_000,
        }
    )
    config.sample = ConfigDict({"n": 64, "solver": None, "steps": None})
    return config

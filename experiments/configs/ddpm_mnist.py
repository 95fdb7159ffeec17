"""DDPM on 28x28 handwritten digits, 5,000 of MNIST inside a package (`".[mnist]"`), class-conditional, with either table of betas.

  diffux train --config ddpm_mnist --workdir runs/mnist
  diffux train --config ddpm_mnist:cosine --workdir runs/mnist_cosine
  diffux evaluate --workdir runs/mnist --solver ddim --steps 50

Five to eight minutes on 2 CPU cores with other work (an AMD EPYC); 0.7 million parameters. 256 samples by ancestral sampling in 50
of the 1000 steps, three seeds of training: 66 to 69 % recognisable, Frechet 5.9 to 6.7 with linear betas; 61 to 66 %, 7.1 to 9.6
with cosine ones (500 held-out digits: 91 %, 1.1). experiments/benchmarks/skipped_steps.py measured them.
"""

from ml_collections import ConfigDict


def get_config(betas: str = "linear"):
    if betas not in ("linear", "cosine"):
        raise ValueError(f"ddpm_mnist is ddpm_mnist:linear or ddpm_mnist:cosine, got {betas}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ddpm",
            "steps": 1000,
            "betas": betas,
            "parameterization": "v",
            "weighting": "snr_plus_one",
            "channels": 16,
            "multipliers": (1, 2, 4),
            "blocks": 1,
            "attention": (7,),
            "dropout": 0.0,
            "classes": 10,
        }
    )
    config.data = ConfigDict({"name": "mnist_5k", "batch_size": 32})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 3e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1000, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64, "solver": "ddim", "steps": 50})
    return config

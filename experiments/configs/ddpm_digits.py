"""DDPM on 8x8 handwritten digits, class-conditional: the first thing to run.

  diffux train --config ddpm_digits --workdir runs/digits
  diffux evaluate --workdir runs/digits --solver ddim --steps 50

100 s on 2 CPU cores from the start of the process to the picture, 11 s of them to the first step (13 s where the data is
prepared as well, 5 s with a warm compilation cache). 0.4 million parameters, 1,300 images a second. 512 samples, one label
after the other, against the 1,437 training images (360 held-out images: 96.9 % recognisable, Frechet 0.92, nearest train 2.05; a
Gaussian of the same pixels: 26 %, 34):

  walk                  recognisable  Frechet  class shares   nearest train
  DDIM, 50 steps               95.1 %     1.18   8.8 - 11.1 %           2.17
  DDIM, 20 steps               96.7 %     1.24   8.8 - 10.7 %           2.11
  ancestral, 1000 steps        95.3 %     0.91   9.6 - 10.5 %           2.10
  Heun, 25 steps               95.1 %     1.18   8.8 - 11.1 %           2.22
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ddpm",
            "steps": 1000,
            "betas": "cosine",
            "parameterization": "v",
            "weighting": "snr_plus_one",
            "channels": 24,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (),
            "dropout": 0.0,
            "classes": 10,
        }
    )
    config.data = ConfigDict({"name": "digits", "batch_size": 64})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64, "solver": "ddim", "steps": 50})
    return config

"""A cascade of handwritten digits, 4 to 8 pixels: improved DDPM, and CDM's stage that enlarges, with noise on what it is given.

  diffux train --config cdm_digits --workdir runs/base
  diffux train --config cdm_digits:up --workdir runs/up
  diffux train --config cdm_digits:control --workdir runs/control
  diffux sample --task "cascade(level=0.1)" --model base=runs/base --model up=runs/up --n 64 --out digits.png

`cdm_digits:control` is `cdm_digits:up` without noise on what it is given, which experiments/benchmarks/cascade.py compares.
"""

from ml_collections import ConfigDict


def get_config(part: str = "base"):
    if part not in ("base", "up", "control"):
        raise ValueError(f"cdm_digits is cdm_digits:base, cdm_digits:up or cdm_digits:control, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "iddpm" if part == "base" else "cdm",
            "steps": 1000,
            "network": "unet",
            "channels": 24,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (),
            "heads": 1,
            "dropout": 0.0,
            "classes": 10,
            "label_dropout": 0.1,
        }
    )
    config.data = ConfigDict({"name": "digits", "batch_size": 64})
    if part == "base":
        config.data.size = 4
    else:
        config.system.update({"enlarges": 2, "levels": 17} | ({"most": 0.5, "level": 0.1} if part == "up" else {"most": None}))
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64, "steps": 50})
    return config

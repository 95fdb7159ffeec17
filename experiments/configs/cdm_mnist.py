"""A cascade of 28x28 handwritten digits in three stages, 7 to 14 to 28 pixels, as `cdm_digits` (needs `".[mnist]"`).

  diffux train --config cdm_mnist --workdir runs/base
  diffux train --config cdm_mnist:up_14 --workdir runs/up_14
  diffux train --config cdm_mnist:up_28 --workdir runs/up_28
  diffux train --config cdm_mnist:control --workdir runs/control
  diffux sample --task "cascade(level=0.1)" --model base=runs/base --model up=runs/up_14 --model up_28=runs/up_28 --out digits.png

`cdm_mnist:control` is `cdm_mnist:up_28` without noise on what it is given, which experiments/benchmarks/cascade.py compares.
"""

from ml_collections import ConfigDict

_LAST = {"size": None, "channels": 16, "multipliers": (1, 2, 2), "steps": 1200}
PARTS = {
    "base": {"size": 7, "channels": 32, "multipliers": (1, 2), "steps": 2000},
    "up_14": {"size": 14, "channels": 24, "multipliers": (1, 2), "steps": 1500},
    "up_28": _LAST,
    "control": _LAST,
}


def get_config(part: str = "base"):
    if part not in PARTS:
        raise ValueError(f"cdm_mnist is {', '.join(f'cdm_mnist:{name}' for name in PARTS)}, got {part}")
    own, config = PARTS[part], ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "iddpm" if part == "base" else "cdm",
            "steps": 1000,
            "network": "unet",
            "channels": own["channels"],
            "multipliers": own["multipliers"] if part != "base" else (1,),
            "blocks": 2 if part == "base" else 1,
            "attention": (7,),
            "heads": 1,
            "dropout": 0.0,
            "classes": 10,
            "label_dropout": 0.1,
        }
    )
    if part != "base":
        config.system.update({"enlarges": 2} | ({"most": None} if part == "control" else {"most": 0.5, "level": 0.1}))
    config.data = ConfigDict({"name": "mnist_5k", "batch_size": 32, "size": own["size"]})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 3e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": own["steps"], "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64, "steps": 50})
    return config

"""SR3 on handwritten digits, 4 to 8 pixels, without the class.

  diffux train --config sr3_digits --workdir runs/sr3
  diffux train --config sr3_digits:regression --workdir runs/regression
  diffux evaluate --workdir runs/sr3 --pairs --beside regression=runs/regression --draws 4
  diffux sample --workdir runs/sr3 --n 64 --out large.png

`sr3_digits:regression` is what SR3 is compared with: the same network's one answer. SR3 predicts v here and not the noise, from
which so short a training does not learn what the small digit tells where there is little else: some samples then stay noise.
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "regression"):
        raise ValueError(f"sr3_digits is sr3_digits:model or sr3_digits:regression, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict({"enlarges": 2, "network": "ncsnpp", "channels": 24, "multipliers": (1, 2), "blocks": 1,
                                "attention": (), "dropout": 0.0})  # fmt: skip
    walk = {"steps": 2000, "draws": 100, "variance": "posterior", "grid": "log_snr(end=1e-4)", "parameterization": "v",
            "weighting": "snr_plus_one"}  # fmt: skip
    config.system.update({"name": "sr3"} | walk if part == "model" else {"name": "regression"})
    config.data = ConfigDict({"name": "digits", "batch_size": 64})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 3e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 2000, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64})
    return config

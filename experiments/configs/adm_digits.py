"""ADM on 8x8 handwritten digits: an unconditional model, and the classifier of noisy digits that guides it.

  diffux train --config adm_digits --workdir runs/adm
  diffux train --config adm_digits:classifier --workdir runs/adm_classifier
  diffux sample --workdir runs/adm --net classifier=runs/adm_classifier --guidance "classifier(3)" --label 3 --out threes.png
"""

from ml_collections import ConfigDict

NETWORK = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head_channels": 16}


def get_config(part: str = "model"):
    if part not in ("model", "classifier"):
        raise ValueError(f"adm_digits is adm_digits:model or adm_digits:classifier, got {part}")
    config = ConfigDict()
    config.seed = 0
    if part == "model":
        chain = {"name": "adm", "network": "adm", "betas": "cosine", "steps": 1000, "levels": 17, "classes": None,
                 "dropout": 0.0}  # fmt: skip
        config.system = ConfigDict(chain | NETWORK)
        config.sample = ConfigDict({"n": 64, "steps": 50})
    else:
        config.system = ConfigDict(
            {"name": "noisy_classifier", "network": "admclassifier", "schedule": "cosine", "steps": 1000, "classes": 10} | NETWORK
        )
    config.data = ConfigDict({"name": "digits", "batch_size": 64})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 1500, "log_every": 50, "sample_every": 500, "checkpoint_every": 500})
    return config

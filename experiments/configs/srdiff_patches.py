"""SRDiff on 32x32 colour patches of photographs, given at half the sides, and the regression whose features it reads.

  diffux train --config srdiff_patches:encoder --workdir runs/rrdb
  diffux train --config srdiff_patches --workdir runs/srdiff
  diffux sample --workdir runs/srdiff --n 16 --out large.png

`srdiff_patches:joint` trains the features with the model. Two photographs are held out whole. What the network predicts, and what
the loss weighs, is EDM's for data of standard deviation 0.17, which residuals have here.
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "encoder", "joint"):
        raise ValueError(f"srdiff_patches is srdiff_patches:model, srdiff_patches:encoder or srdiff_patches:joint, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"name": "patches/32_photographs", "batch_size": 32, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.995})
    config.training = ConfigDict({"steps": 2000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16})
    if part == "encoder":
        config.system = ConfigDict({"name": "regression", "network": "rrdb", "enlarges": 2, "channels": 16, "blocks": 2})
        return config
    config.system = ConfigDict(
        {
            "name": "srdiff",
            "enlarges": 2,
            "channels": 16,
            "multipliers": (1, 2),
            "blocks": 1,
            "parameterization": "edm(0.17)",
            "weighting": "edm(0.17)",
        }
    )
    if part == "joint":
        config.system.update({"encoder_channels": 16, "encoder_blocks": 2})
    else:
        config.nets = ConfigDict({"encoder": "runs/rrdb"})
    return config

"""SR3 on colour patches of photographs: 8 to 16 pixels, or 16 to 32; two photographs are held out whole.

  diffux train --config sr3_patches --workdir runs/sr3
  diffux train --config sr3_patches:32 --workdir runs/sr3_32
  diffux sample --workdir runs/sr3 --n 16 --out large.png
"""

from ml_collections import ConfigDict


def get_config(side: str = "16"):
    if side not in ("16", "32"):
        raise ValueError(f"sr3_patches is sr3_patches:16 or sr3_patches:32, got {side}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "sr3",
            "enlarges": 2,
            "steps": 2000,
            "draws": 100,
            "network": "ncsnpp",
            "channels": 32 if side == "16" else 24,
            "multipliers": (1, 2, 2),
            "blocks": 1,
            "attention": (),
            "dropout": 0.0,
        }
    )
    config.data = ConfigDict({"name": f"patches/{side}_photographs", "batch_size": 32, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 3000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 32})
    return config

"""A first stage with a codebook, of 32x32 colour patches of photographs: 8x8 of 256 codes; two photographs are held out whole.

  diffux train --config vq_patches --workdir runs/vq
  diffux evaluate --workdir runs/vq --pairs

The codes are moving averages of the latents, and those that are hardly used begin again at a latent; otherwise as `kl_patches`.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "first_stage",
            "regular": "vq_moving",
            "codes": 256,
            "restart": 0.05,
            "widths": (32, 64, 64),
            "blocks": 1,
            "middle": "plain",
            "latent": 3,
            "distance": None,
            "start": None,
        }
    )
    config.data = ConfigDict({"name": "patches/32_photographs", "batch_size": 32, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 100, "clip": None})
    config.optimizer.groups = (("^codebook", {"name": "sgd", "learning_rate": 1.0, "schedule": "constant", "warmup": 0}),)
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16})
    return config

"""A first stage with a codebook, of 32x32 colour patches of photographs: 8x8 of 256 codes; two photographs are held out whole.

  diffux train --config vq_patches --workdir runs/vq
  diffux evaluate --workdir runs/vq --pairs

Otherwise as `kl_patches`, with VQ-VAE's own weights of its two errors.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "first_stage",
            "regular": "vq",
            "codes": 256,
            "legacy": False,
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
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16})
    return config

"""A first stage of 32x32 colour patches of photographs, whose latents are 8x8x3; two photographs are held out whole.

  diffux train --config kl_patches --workdir runs/kl
  diffux train --config kl_patches:perceptual --workdir runs/kl_perceptual
  diffux evaluate --workdir runs/kl --pairs

`kl_patches` is trained by the absolute error alone; `kl_patches:perceptual` with the distance of a random network besides, in
LPIPS's place, and a discriminator that counts from step 2,001 on.
"""

from ml_collections import ConfigDict


def get_config(part: str = "absolute"):
    if part not in ("absolute", "perceptual"):
        raise ValueError(f"kl_patches is kl_patches:absolute or kl_patches:perceptual, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "first_stage",
            "regular": "kl",
            "kl": 1e-6,
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
    if part == "perceptual":
        config.system.update({"distance": "random", "start": 2001, "channels": 32, "layers": 2})
        config.optimizer.groups = (("^discriminator", {"options": {"b1": 0.5, "b2": 0.9}}),)
    return config

"""Latent diffusion of 32x32 colour patches of photographs, in the 8x8x3 latents of `kl_patches`.

  diffux train --config kl_patches --workdir runs/kl
  diffux train --config ldm_patches --workdir runs/ldm --config.nets.first_stage=runs/kl
  diffux sample --workdir runs/ldm --n 64 --out patches.png

`ldm_patches:pixels` is what it is compared with: the same chain, in pixels.
"""

from ml_collections import ConfigDict


def get_config(part: str = "latents"):
    if part not in ("latents", "pixels"):
        raise ValueError(f"ldm_patches is ldm_patches:latents or ldm_patches:pixels, got {part}")
    latents = part == "latents"
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ldm",
            "steps": 1000,
            "parameterization": "v",
            "weighting": "snr_plus_one",
            "solver": "ddim",
            "draws": 50,
            "clip": not latents,
            "network": "unet",
            "channels": 64 if latents else 32,
            "multipliers": (1, 2) if latents else (1, 2, 2),
            "blocks": 2 if latents else 1,
            "attention": (4, 8),
            "dropout": 0.0,
        }
    )
    if latents:
        config.nets = ConfigDict({"first_stage": "runs/kl"})
    config.data = ConfigDict({"name": "patches/32_photographs", "batch_size": 64 if latents else 32, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 64})
    return config

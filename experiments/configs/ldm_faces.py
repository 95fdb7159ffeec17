"""Latent diffusion of faces of 256 pixels, and its first stage, with the numbers of Rombach et al. (2022), app. E and code.

  diffux train --config ldm_faces:first_stage --workdir runs/vq_f4 --config.nets.perceptual=vgg.safetensors
  diffux train --config ldm_faces --workdir runs/ldm_faces --config.nets.first_stage=runs/vq_f4

LDM-4 in latents of 64x64x3, before a codebook of 8192; 500,000 steps of batch 96: made for accelerators, and not trained here. The
paper reports a Frechet distance of 5.11 in 500 steps. The learning rate is the code's, 2e-6 for each image of a batch.
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "first_stage"):
        raise ValueError(f"ldm_faces is ldm_faces:model or ldm_faces:first_stage, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"name": "celeb_a_hq/256", "batch_size": 96, "flip": True})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict({"steps": 500_000, "log_every": 100, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 16})
    if part == "first_stage":
        stage = {"regular": "vq", "codes": 8192, "widths": (128, 256, 512), "latent": 3, "start": 250_001, "distance": None}
        config.system = ConfigDict({"name": "first_stage", "adversarial_weight": 0.75} | stage)
        adam = {"name": "adam", "learning_rate": 4.5e-6 * 96, "clip": None, "options": {"b1": 0.5, "b2": 0.9}}
        config.optimizer = ConfigDict(adam | {"groups": (("^discriminator", {}),)})
        config.nets = ConfigDict({"perceptual": "vgg.safetensors"})
        return config
    config.system = ConfigDict(
        {
            "name": "ldm",
            "betas": "scaled_linear(0.0015,0.0195)",
            "solver": "ddim",
            "draws": 500,
            "network": "stable",
            "widths": (224, 448, 672, 896),
            "kinds": ("plain", "self", "self", "self"),
            "middle": "self",
            "heads": (7, 14, 21, 28),
            "text_width": None,
        }
    )
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-6 * 96, "clip": None})
    config.nets = ConfigDict({"first_stage": "runs/vq_f4"})
    return config

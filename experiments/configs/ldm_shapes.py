"""Text to image in latents: 32x32 pictures of one coloured shape and their captions, whose encoder is trained with the model.

  diffux train --config ldm_shapes:first_stage --workdir runs/shapes_stage
  diffux train --config ldm_shapes --workdir runs/ldm_shapes --config.nets.first_stage=runs/shapes_stage
  diffux sample --workdir runs/ldm_shapes --given caption="a red circle" --guidance "classifier_free(3)" --n 16 --out circles.png
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "first_stage"):
        raise ValueError(f"ldm_shapes is ldm_shapes:model or ldm_shapes:first_stage, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"name": "captioned_shapes:32", "batch_size": 32, "options": {"objects": 1}})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 100, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16})
    if part == "first_stage":
        config.system = ConfigDict(
            {
                "name": "first_stage",
                "regular": "kl",
                "widths": (16, 32, 64),
                "blocks": 1,
                "middle": "plain",
                "latent": 3,
                "distance": None,
                "start": None,
            }
        )
        config.training.steps = 2000
        config.optimizer.clip = None
        return config
    config.system = ConfigDict(
        {
            "name": "ldm",
            "steps": 1000,
            "parameterization": "v",
            "weighting": "snr_plus_one",
            "solver": "ddim",
            "draws": 50,
            "network": "stable",
            "widths": (64, 128),
            "blocks": 1,
            "kinds": ("cross", "cross"),
            "heads": (2, 4),
            "depth": (1, 1),
            "text_width": 64,
            "groups": 16,
            "tokens": 43,
            "text_layers": 2,
            "text_heads": 2,
        }
    )
    config.nets = ConfigDict({"first_stage": "runs/shapes_stage"})
    return config

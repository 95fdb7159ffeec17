"""GLIDE on pictures of one to three coloured shapes and their captions: 16x16 pixels, enlarged to 32x32, and with holes.

  diffux train --config glide_shapes --workdir runs/glide
  diffux train --config glide_shapes:up --workdir runs/glide_up
  diffux train --config glide_shapes:inpainting --workdir runs/glide_holes --config.training.start=runs/glide
  diffux sample --workdir runs/glide --given caption="a red circle above a blue square" --guidance 3 --n 16 --out shapes.png
  diffux sample --task cascade --model base=runs/glide --model up=runs/glide_up --given caption="two green crosses" --out large.png
  diffux evaluate --workdir runs/glide --figures relations --guidance 3
"""

from ml_collections import ConfigDict

TEXT = {"tokens": 43, "length": 16, "padding": 0, "text_width": 128, "text_layers": 3, "text_heads": 4}


def get_config(part: str = "model"):
    if part not in ("model", "up", "inpainting"):
        raise ValueError(f"glide_shapes is glide_shapes:model, glide_shapes:up or glide_shapes:inpainting, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {"name": "glide", "network": "glide", "channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,),
         "head_channels": 32, "dropout": 0.0, "draws": 50} | TEXT
    )  # fmt: skip
    config.data = ConfigDict({"name": "captioned_shapes:16", "batch_size": 32, "options": {"examples": 20_000}})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4800, "log_every": 50, "sample_every": 1200, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16, "guidance": 3.0})
    if part == "up":
        config.system.update({"enlarges": 2, "betas": "linear", "attention": (), "text_layers": 1, "solver": "ddim",
                              "draws": 27, "grid": "sections(1000,(10,10,3,2,2),997)", "temperature": 0.997})  # fmt: skip
        config.data.name, config.data.batch_size, config.training.steps = "captioned_shapes:32", 16, 1500
        config.sample.guidance = None
    if part == "inpainting":
        config.system.inpaints = True
        config.training.steps = 1500
        config.training.start = "runs/glide"
    return config

"""Imagen on pictures of one to three coloured shapes and their captions, 16x16 and enlarged to 32x32; a small encoder of texts is
trained with each of the two.

  diffux train --config imagen_shapes --workdir runs/imagen
  diffux train --config imagen_shapes:up --workdir runs/imagen_up
  diffux sample --task "cascade(level=0.1)" --model base=runs/imagen --model up=runs/imagen_up --guidance 4 \
    --given caption="a red circle above a blue square" --n 16 --out shapes.png
  diffux evaluate --workdir runs/imagen --figures relations --guidance 4

An encoder of your own, frozen: --config.nets.text=DIR --config.system.text_width=512. The models predict v, which so short a
training learns faster than the paper's noise.
"""

from ml_collections import ConfigDict

TEXT = {"tokens": 43, "padding": 0, "text_width": 128, "text_layers": 3, "text_heads": 4}


def get_config(part: str = "model"):
    if part not in ("model", "up"):
        raise ValueError(f"imagen_shapes is imagen_shapes:model or imagen_shapes:up, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {"name": "imagen", "parameterization": "v", "weighting": "snr_plus_one", "draws": 50, "network": "imagen", "channels": 32,
         "multipliers": (1, 2), "blocks": 1, "attention": (8,), "head_channels": 32, "dropout": 0.0} | TEXT
    )  # fmt: skip
    config.data = ConfigDict({"name": "captioned_shapes:16", "batch_size": 32, "options": {"examples": 20_000}})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4100, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16, "guidance": 3.0})
    if part == "up":
        config.system = ConfigDict(
            {"name": "imagen", "parameterization": "v", "weighting": "snr_plus_one", "draws": 30, "enlarges": 2, "level": 0.1,
             "network": "efficientunet", "widths": (32, 64), "blocks": (1, 2), "attention": (1,), "heads": 4}
            | TEXT | {"text_layers": 1}
        )  # fmt: skip
        config.data.name, config.data.batch_size, config.training.steps = "captioned_shapes:32", 16, 1500
        config.sample = ConfigDict({"n": 16})
    return config

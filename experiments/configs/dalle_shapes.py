"""DALL-E on 16x16 pictures of one to three coloured shapes and their captions: a discrete autoencoder of 4x4 codes, and the model
of them.

  diffux train --config dalle_shapes:codes --workdir runs/codes
  diffux train --config dalle_shapes --workdir runs/dalle --config.nets.dvae=runs/codes
  diffux sample --workdir runs/dalle --given caption="a red circle above a blue square" --n 16 --out shapes.png
  diffux train --config unclip_shapes:contrastive --workdir runs/pairs
  diffux sample --task "best_of(draws=8)" --model model=runs/dalle --model judge=runs/pairs \
    --given caption="two green crosses" --out best.png
  diffux evaluate --workdir runs/dalle --figures relations

The contrastive model keeps the best of several samples.
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "codes"):
        raise ValueError(f"dalle_shapes is dalle_shapes:model or dalle_shapes:codes, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"name": "captioned_shapes:16", "batch_size": 64, "options": {"examples": 20_000}})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 2300, "log_every": 50, "sample_every": 0, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16})
    if part == "codes":
        config.system = ConfigDict({"name": "dvae", "codes": 256, "widths": (32, 64, 64), "blocks": 1, "beta": 1.0, "anneal": 1000})
        config.training.steps = 1500
        return config
    config.nets = ConfigDict({"dvae": "runs/codes"})
    config.system = ConfigDict({"name": "dalle", "tokens": 43, "width": 192, "layers": 4, "heads": 6, "side": 4})
    return config

"""unCLIP on 16x16 pictures of one to three coloured shapes and their captions: a contrastive model, a prior of its embeddings, and
a decoder of them.

  diffux train --config unclip_shapes:contrastive --workdir runs/pairs
  diffux train --config unclip_shapes:prior --workdir runs/prior --config.nets.contrastive=runs/pairs
  diffux train --config unclip_shapes --workdir runs/unclip --config.nets.contrastive=runs/pairs
  diffux train --config unclip_shapes:noisy --workdir runs/noisy --config.nets.clean=runs/pairs --config.training.start=runs/pairs
  diffux sample --task prior_decoder --model prior=runs/prior --model decoder=runs/unclip \
    --given caption="a red circle above a blue square" --n 16 --out shapes.png
  diffux sample --task variations --model model=runs/unclip --given image=shape.png --given caption="" --n 16 --out others.png

The prior that says the embedding code by code, in the place of the one that diffuses it:

  diffux train --config unclip_shapes:autoregressive --workdir runs/autoregressive --config.nets.contrastive=runs/pairs
  diffux sample --task "prior_decoder(draws=1)" --model prior=runs/autoregressive --model decoder=runs/unclip \
    --given caption="a red circle above a blue square" --n 16 --out shapes.png

`glide_shapes:up` enlarges what it draws. The text of the decoder is dropped half the time, as in the paper. The part noisy is an
encoder of noised pictures, which guides other models: `diffux sample --workdir runs/glide --net semantic=runs/noisy
--guidance "semantic(text=300,moves=mean)"`.
"""

from ml_collections import ConfigDict

TEXT = {"length": 16, "padding": 0, "text_width": 128, "text_layers": 3, "text_heads": 4}
PRIOR = {"width": 128, "layers": 4, "heads": 4}
PARTS = ("model", "prior", "autoregressive", "contrastive", "noisy")


def get_config(part: str = "model"):
    if part not in PARTS:
        raise ValueError(f"unclip_shapes is {', '.join(f'unclip_shapes:{one}' for one in PARTS)}, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"name": "captioned_shapes:16", "batch_size": 32, "options": {"examples": 20_000}})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 3000, "log_every": 50, "sample_every": 0, "checkpoint_every": 500})
    if part in ("contrastive", "noisy"):
        config.system = ConfigDict({"name": "contrastive", "steps": 1000, "schedule": "cosine", "tokens": 43, "channels": 32,
                                    "multipliers": (1, 2), "depth": 2, "width": 128})  # fmt: skip
        config.data.batch_size, config.training.steps = 128, 1200
        if part == "noisy":
            config.nets, config.training.start = ConfigDict({"clean": "runs/pairs"}), "runs/pairs"
            config.training.steps = 1500
        return config
    config.nets = ConfigDict({"contrastive": "runs/pairs"})
    if part == "prior":
        config.system = ConfigDict({"name": "unclip_prior", "normalizer": "root"} | PRIOR | TEXT)
        config.data.batch_size, config.training.steps = 64, 1000
        return config
    if part == "autoregressive":
        config.system = ConfigDict({"name": "unclip_autoregressive", "components": 32, "buckets": 64} | PRIOR | TEXT)
        config.data.batch_size, config.training.steps = 64, 1000
        return config
    config.system = ConfigDict(
        {"name": "unclip", "channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "head_channels": 32,
         "dropout": 0.0, "draws": 50} | TEXT
    )  # fmt: skip
    config.sample = ConfigDict({"n": 16, "guidance": 3.0})
    return config

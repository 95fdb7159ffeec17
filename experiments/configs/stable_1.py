"""Stable Diffusion 1's own settings (Rombach et al., 2022, and code), for training on from its weights.

  diffux train --config stable_1 --workdir runs/sd --config.nets.first_stage=sd/vae --config.nets.text=sd/text_encoder \
    --config.training.start=sd --config.data.name=NAME

`sd` is the published model's folder, and the data, for which a set of shapes stands here, have pictures of 512x512 and captions by
its tokenizer, see docs/pretrained.md. Batch 2048 at a constant rate of 1e-4 after 10,000 steps; a tenth of the captions is empty.
860 million parameters: made for accelerators, and not trained here.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "name": "ldm",
            "steps": 1000,
            "betas": "scaled_linear(0.00085,0.012)",
            "spacing": "leading",
            "offset": 1,
            "last": "first",
            "solver": "plms",
            "draws": 50,
            "label_dropout": 0.1,
            "network": "stable_1",
        }
    )
    config.nets = ConfigDict({"first_stage": "sd/vae", "text": "sd/text_encoder"})
    config.data = ConfigDict({"name": "captioned_shapes:512", "batch_size": 2048})
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 1e-4, "schedule": "constant", "warmup": 10_000, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict({"steps": 225_000, "log_every": 100, "checkpoint_every": 1000})
    config.sample = ConfigDict({"n": 4})
    return config

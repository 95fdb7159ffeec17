"""GLIDE on emoji of 32x32 pixels and their names.

  apt-get install fonts-noto-color-emoji unicode-cldr-core && pip install -e ".[text,emoji]"
  diffux train --config glide_emoji --workdir runs/glide_emoji
  diffux sample --workdir runs/glide_emoji --given caption="cat with wry smile" --guidance 3 --n 16 --out emoji.png

There are some 1,600 of them, of which a tenth is held out: words of the others that are new are all one, unknown.
"""

from ml_collections import ConfigDict

WORDS, LENGTH = 2048, 16


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {"name": "glide", "network": "glide", "channels": 32, "multipliers": (1, 2, 2), "blocks": 1, "attention": (8,),
         "head_channels": 32, "dropout": 0.1, "draws": 50, "tokens": WORDS, "length": LENGTH, "padding": 0, "text_width": 128,
         "text_layers": 3, "text_heads": 4}
    )  # fmt: skip
    config.data = ConfigDict({"name": "emoji", "batch_size": 32, "options": {"vocabulary": WORDS, "length": LENGTH}})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    config.training = ConfigDict({"steps": 4000, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 16, "guidance": 3.0})
    return config

"""CDM on ImageNet, 32 to 64 to 128 or 256 pixels (Ho et al., 2022), as far as its numbers are known.

  diffux train --config cdm_imagenet --workdir runs/cdm_32
  diffux train --config cdm_imagenet:64 --workdir runs/cdm_64
  diffux train --config cdm_imagenet:256 --workdir runs/cdm_256
  diffux sample --task cascade --model base=runs/cdm_32 --model up=runs/cdm_64 --model up_256=runs/cdm_256 --out large.png

Made for accelerators, and not trained here. The paper reports Frechet inception distances of 1.48, 3.52 and 4.88 at 64, 128 and 256
pixels. No code was published: batch, rate and networks are those of ADM. The stage to 64 is given noise, those above it blur.
"""

from ml_collections import ConfigDict

STAGES = {
    "32": {"name": "iddpm", "network": "adm_64"},
    "64": {"name": "cdm", "enlarges": 2, "network": "adm_64", "most": 1.0},
    "128": {"name": "cdm", "enlarges": 2, "network": "adm_128", "most": None, "blur": 0.5},
    "256": {"name": "cdm", "enlarges": 4, "network": "adm_256", "most": None, "blur": 0.5},
}


def get_config(side: str = "32"):
    if side not in STAGES:
        raise ValueError(f"cdm_imagenet is {', '.join(f'cdm_imagenet:{name}' for name in STAGES)}, got {side}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict({"steps": 4000, "classes": 1000} | STAGES[side])
    config.data = ConfigDict({"name": "imagenet2012", "batch_size": 1024, "size": int(side), "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4, "schedule": "constant", "warmup": 0, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict({"steps": 500_000, "log_every": 100, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 64, "steps": 256})
    return config

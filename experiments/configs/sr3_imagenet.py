"""SR3 on ImageNet, 64 to 256 pixels, with the numbers of Saharia et al. (2021), sec. 4 and app. A.

  diffux train --config sr3_imagenet --workdir runs/sr3_imagenet
  diffux train --config sr3_imagenet:cascade --workdir runs/sr3_cascade

1,000,000 steps of batch 256: made for accelerators, and not trained here. The paper reports a Frechet inception distance of 5.2, an
inception score of 180.1, a PSNR of 26.4 dB and an SSIM of 0.762 on the validation images (regression: 15.2, 121.1, 27.9 and
0.801). As the second stage of a cascade, where training blurs the small images, 11.3 (13.1 without the blur).
"""

from ml_collections import ConfigDict


def get_config(part: str = "alone"):
    if part not in ("alone", "cascade"):
        raise ValueError(f"sr3_imagenet is sr3_imagenet:alone or sr3_imagenet:cascade, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict({"name": "sr3", "enlarges": 4, "steps": 2000, "draws": 100, "network": "sr3_64_256"})
    config.system.blur = {"alone": 0.0, "cascade": 0.5}[part]
    config.data = ConfigDict({"name": "imagenet2012", "batch_size": 256, "size": 256})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4, "schedule": "constant", "warmup": 10_000, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict({"steps": 1_000_000, "log_every": 100, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 16})
    return config

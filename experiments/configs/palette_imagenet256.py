"""Palette on ImageNet at 256x256 with the numbers of Saharia et al. (2022), sec. 4 and 5: four problems, one recipe.

  diffux train --config palette_imagenet256 --workdir runs/inpainting
  diffux train --config palette_imagenet256:colorization --workdir runs/colorization
  diffux train --config palette_imagenet256:uncropping --workdir runs/uncropping
  diffux train --config palette_imagenet256:jpeg --workdir runs/jpeg

1,000,000 steps of batch 1024: made for accelerators, and not trained here. The paper reports of samples for ctest10k the Frechet
inception distance to the 50,000 validation images, the inception score, the classification accuracy (%), and the distance to the
image in features of Inception-v1:

  colorization                  15.78 (of 5,000 samples)   200.8   72.5    46.2
  inpainting, 20 to 30 %         5.2                       205.5   72.3    27.6
  inpainting, the middle 128     6.6                       173.9   69.3    59.5
  uncropping                     5.8                       138.1   63.4    85.9

For JPEGs of quality 5, 10 and 20 the first is 8.3, 5.4 and 4.3. Its inpainting and uncropping models are trained on ImageNet and
Places2, here on ImageNet alone. Which grey, how long the strokes are and how the masked loss is normalized is not stated.
"""

from ml_collections import ConfigDict

PARTS = ("colorization", "inpainting", "uncropping", "jpeg")


def get_config(part: str = "inpainting"):
    if part not in PARTS:
        raise ValueError(f"palette_imagenet256 is {', '.join(f'palette_imagenet256:{name}' for name in PARTS)}, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict({"name": "palette", "problem": part, "steps": 2000, "draws": 1000, "network": "palette_256"})
    config.data = ConfigDict({"name": "imagenet2012", "batch_size": 1024, "size": 256})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4, "schedule": "constant", "warmup": 10_000, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict({"steps": 1_000_000, "log_every": 100, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 16})
    return config

"""Palette on 16x16 colour patches of photographs: four problems, one recipe; two photographs are held out whole.

  diffux train --config palette_patches --workdir runs/inpainting
  diffux train --config palette_patches:colorization --workdir runs/colorization
  diffux train --config palette_patches:uncropping --workdir runs/uncropping
  diffux train --config palette_patches:jpeg --workdir runs/jpeg
  diffux train --config palette_patches:regression_jpeg --workdir runs/regression_jpeg
  diffux sample --workdir runs/inpainting --n 16 --out painted.png
  diffux sample --workdir runs/inpainting --given source=photo.png --given mask=mask.png --n 16 --out mine.png

With `regression_` before its name, what Palette is compared with: the same network's one answer. A mask is white where the picture
is known. The model predicts v, and the walk is the one that SR3's was found best with, as in `sr3_patches`.
"""

from ml_collections import ConfigDict

PARTS = ("colorization", "inpainting", "uncropping", "jpeg")


def get_config(part: str = "inpainting"):
    one_answer, problem = part.startswith("regression_"), part.removeprefix("regression_")
    if problem not in PARTS:
        raise ValueError(f"palette_patches is {', '.join(f'palette_patches:{name}' for name in PARTS)}, or one of these after "
                         f"regression_, got {part}")  # fmt: skip
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict(
        {
            "problem": problem,
            "network": "unet",
            "channels": 32,
            "multipliers": (1, 2, 2),
            "blocks": 1,
            "attention": (4, 8),
            "dropout": 0.0,
        }
    )
    walk = {"draws": 100, "variance": "posterior", "grid": "log_snr(end=1e-4)", "parameterization": "v",
            "weighting": "snr_plus_one"}  # fmt: skip
    config.system.update({"name": "regression"} if one_answer else {"name": "palette"} | walk)
    config.data = ConfigDict({"name": "patches/16_photographs", "batch_size": 32, "flip": True})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-3, "schedule": "cosine", "warmup": 200, "clip": 1.0})
    config.ema = ConfigDict({"decay": 0.998})
    steps = 1500 if one_answer else 3000
    config.training = ConfigDict({"steps": steps, "log_every": 50, "sample_every": 1000, "checkpoint_every": 500})
    config.sample = ConfigDict({"n": 32})
    return config

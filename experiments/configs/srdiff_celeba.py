"""SRDiff on CelebA's faces, 20x20 to 160x160, with the numbers of Li et al. (2021) and of their code.

  diffux train --config srdiff_celeba:encoder --workdir runs/rrdb
  diffux train --config srdiff_celeba --workdir runs/srdiff

100,000 steps of batch 64 and 300,000 of batch 32, 1.5 and 10.5 million parameters: made for accelerators, and not trained here.
CelebA must have been prepared once; the error says how where it was not. The authors report of their released weights a PSNR of
25.45, an SSIM of 0.746 and an LPIPS of 0.106, and a PSNR of 53.1 between the low images and those made of the results.

As by the authors' loop no gradient is clipped (their config names a
norm of 10, which the loop does not read), and no average is kept.
"""

from ml_collections import ConfigDict


def get_config(part: str = "model"):
    if part not in ("model", "encoder"):
        raise ValueError(f"this config has the parts model and encoder, got {part}")
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"name": "celeb_a", "size": 160, "batch_size": 32})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 2e-4, "schedule": "halved(3)", "warmup": 0, "clip": None})
    config.ema = ConfigDict({"decay": 0.0})
    config.training = ConfigDict({"steps": 300_000, "log_every": 100, "sample_every": 10_000, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 16})
    if part == "encoder":
        config.system = ConfigDict({"name": "regression", "network": "rrdb", "enlarges": 8, "channels": 32, "blocks": 8})
        config.data.batch_size = 64
        config.optimizer.schedule = "constant"
        config.training.steps = 100_000
    else:
        config.system = ConfigDict({"name": "srdiff", "enlarges": 8, "channels": 64, "multipliers": (1, 2, 2, 4)})
        config.nets = ConfigDict({"encoder": "runs/rrdb"})
    return config

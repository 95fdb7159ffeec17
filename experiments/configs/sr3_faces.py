"""SR3 on faces, 16 to 128 pixels, with the numbers of Saharia et al. (2021), sec. 4 and app. A.

  diffux train --config sr3_faces --workdir runs/sr3_faces
  diffux sample --workdir runs/sr3_faces --n 16 --out faces.png

1,000,000 steps of batch 256: made for accelerators, and not trained here. The paper trains on FFHQ and reports on CelebA-HQ a PSNR
of 23.04 dB, an SSIM of 0.65 and a consistency of 2.68e-5 (regression: 23.96, 0.69 and 2.71e-5), and that people take about half of
the samples for the photographs. Other sizes are this config with --config.system.network=sr3_64_512 and data of that size. The
paper searched for the betas of its walks, and does not state them.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.system = ConfigDict({"name": "sr3", "enlarges": 8, "steps": 2000, "draws": 100, "network": "sr3_16_128"})
    config.data = ConfigDict({"name": "celeb_a_hq/128", "batch_size": 256})
    config.optimizer = ConfigDict({"name": "adam", "learning_rate": 1e-4, "schedule": "constant", "warmup": 10_000, "clip": None})
    config.ema = ConfigDict({"decay": 0.9999})
    config.training = ConfigDict({"steps": 1_000_000, "log_every": 100, "checkpoint_every": 10_000})
    config.sample = ConfigDict({"n": 16})
    return config

"""NCSNv2 on faces at 256x256 with the numbers of Song and Ermon (2020), appendix B, and of their code.

  diffux train --config ncsnv2_ffhq --workdir runs/ncsnv2_ffhq \
      --config.data.name=folder:/path/to/ffhq

80,000 steps of batch 32, 94.1 million parameters, sampled with 2311 levels of 3 Langevin steps: made for accelerators, and not
trained here; the paper shows samples and no score.

The code's Adam has eps 1e-3 for a loss that sums over the 196,608 dimensions and halves; ours is a mean, so that the same
update has eps 1e-3 * 2 / 196608.
"""

import ncsnv2_cifar10


def get_config():
    config = ncsnv2_cifar10.get_config()
    config.system.update({"levels": 2311, "sigma_max": 348.0, "step": 0.009, "inner": 3})
    config.system.update({"multipliers": (1, 2, 2, 2, 4, 4), "remat": "blocks"})
    config.data.update({"name": "folder:/path/to/ffhq", "batch_size": 32, "size": 256})
    config.optimizer.options.eps = 1.02e-8
    config.training.steps = 80_000
    config.sample.n = 16
    return config

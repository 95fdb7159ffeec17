"""SRDiff on patches of DIV2K and Flickr2K, 40x40 to 160x160, with the numbers of Li et al. (2021) and of their code.

  diffux train --config srdiff_df2k:encoder --workdir runs/rrdb --config.data.name=folder:/path/to/patches
  diffux train --config srdiff_df2k --workdir runs/srdiff --config.data.name=folder:/path/to/patches

100,000 and 400,000 steps of batch 64, 12.4 and 12.9 million parameters: made for accelerators, and not trained here. Patches of
160x160 pixels are to be cut beforehand. The authors report of their released weights, on DIV2K, a PSNR of 27.16, an SSIM of 0.786
and an LPIPS of 0.129, and a PSNR of 53.7 between the low images and those made of the results.

The encoder is that of the authors' config for training it, with 64 channels and 17 blocks; their config for the model has one of 32
channels and 8 blocks, with which the U-Net has 11.8 million parameters. They made the low images in advance, and cut patches of
both; here training makes the low ones of the patches.
"""

import srdiff_celeba


def get_config(part: str = "model"):
    config = srdiff_celeba.get_config(part)
    config.data.update({"name": "folder:/path/to/patches", "batch_size": 64})
    config.system.enlarges = 4
    if part == "encoder":
        config.system.update({"channels": 64, "blocks": 17})
    else:
        config.system.multipliers = (1, 2, 3, 4)
        config.optimizer.schedule = "halved(2)"
        config.training.steps = 400_000
    return config

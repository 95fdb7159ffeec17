"""NCSNv2 on CelebA at 64x64 with the numbers of Song and Ermon (2020), appendix B, and of their code.

  diffux train --config ncsnv2_celeba --workdir runs/ncsnv2_celeba

210,000 steps of batch 128, 29.7 million parameters, sampled with 500 levels of 5 Langevin steps: made for an accelerator, and not
trained here. CelebA must have been prepared once; the error says how where it was not. The paper reports a Frechet
inception distance of 10.23, on faces cut out around their centre.

Our loss is the mean over dimensions of what the papers sum and halve: Adam's eps of 1e-8 becomes 1e-8 * 2 / 12288.
"""

import ncsnv2_cifar10


def get_config():
    config = ncsnv2_cifar10.get_config()
    config.system.update({"levels": 500, "sigma_max": 90.0, "step": 0.033})
    config.data.update({"name": "celeb_a", "size": 64})
    config.optimizer.options.eps = 1.6e-12
    config.training.steps = 210_000
    return config

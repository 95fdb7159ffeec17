"""Sohl-Dickstein et al. (2015) on CIFAR-10, with the settings of the paper and of its code.

  diffux train --config diffusion2015_cifar10 --workdir runs/cifar10_2015

Made for an accelerator, and not trained here; CIFAR-10 must have been prepared once, and the error says how where it was not.
The paper reports K = 5.4 +- 0.2 bits a pixel, 11.5 above the isotropic Gaussian. The mean and standard deviation are those of
all channels of the training set in [0, 1]; a bound in bits a dimension of the standardised pixels is one of pixels in 0 .. 255
after log2(256 * 0.2516) = 6.009 is added.
"""

import diffusion2015_mnist


def get_config():
    config = diffusion2015_mnist.get_config()
    mean, std = 0.4734, 0.2516
    config.system.codec = f"pixels({-mean / std}, {(1 - mean) / std})"
    config.data.update({"name": "cifar10", "batch_size": 200})
    return config

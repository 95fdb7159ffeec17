"""NCSNv2 on 8x8 handwritten digits: a small RefineNet that is not told the noise, and annealed Langevin dynamics.

  diffux train --config ncsnv2_digits --workdir runs/ncsnv2_digits
  diffux evaluate --workdir runs/ncsnv2_digits

5,000 steps: 13 minutes on 2 CPU cores that were busy with other work. 512 samples by annealed Langevin: 85.4 % recognisable,
Frechet 2.40, class shares 8.4 to 10.9 %, nearest train 2.46 (360 held-out images: 96.4 %, 0.90, 2.05). After 1,500 steps it
was 55 % and 12: the network has to find the noise level in x itself.

The levels are those of `ncsnv2.choose(images, sigma_min=0.02, inner=10)`, rounded.
"""

import ncsn_digits


def get_config():
    config = ncsn_digits.get_config()
    config.system.name = "ncsnv2"
    return config

"""DDPM on 8x8 handwritten digits without labels, for a classifier to guide (classifier_digits.py).

  diffux train --config ddpm_digits_unconditional --workdir runs/plain

Takes as long as ddpm_digits.py, and differs in nothing else.
"""

import ddpm_digits


def get_config():
    config = ddpm_digits.get_config()
    del config.system.classes
    return config

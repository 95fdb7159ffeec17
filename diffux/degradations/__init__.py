"""What is done to images that a model learns, or is asked, to restore: pure functions, one a file, of images in [0, 1].

The linear ones among them are operators with a transpose, `diffux.operators`: means of blocks, resizing, means of the channels,
masks, and convolution, for which `kernels` has blurs.
"""

from diffux.degradations import kernels, masks
from diffux.degradations._greyed import greyed
from diffux.degradations._harmonic_fill import harmonic_fill
from diffux.degradations._jpeg import jpeg, qualities

__all__ = ["greyed", "harmonic_fill", "jpeg", "kernels", "masks", "qualities"]

"""Training: one loop for every system, and what it keeps on disk.

Example:
    >>> from diffux import training
    >>> training.train({"system": {"name": "ddpm"}, "data": {"name": "cifar10"}}, "runs/cifar10")  # doctest: +SKIP
"""

from diffux.training import export
from diffux.training.errors import Diverged, UserError
from diffux.training.loop import Result, train
from diffux.training.restore import Run, load

__all__ = ["Diverged", "Result", "Run", "UserError", "export", "load", "train"]

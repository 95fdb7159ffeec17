"""Training: one loop for every kind of system, and what it keeps on disk.

Example:
    >>> from diffux import training
    >>> training.train({"system": {"name": "ddpm"}, "data": {"name": "cifar10"}}, "runs/cifar10")  # doctest: +SKIP
"""

from diffux.errors import Diverged, UserError
from diffux.runs import export
from diffux.runs.restore import load
from diffux.runs.run import Run
from diffux.training.loop import Result, train

__all__ = ["Diverged", "Result", "Run", "UserError", "export", "load", "train"]

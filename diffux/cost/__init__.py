"""What training costs, before it runs: memory, operations, exchanges and time of a step that was only compiled.

Example:
    >>> from diffux import cost
    >>> print(cost.measure({"system": {"name": "ddpm"}, "data": {"name": "cifar10"}}, "v5e:4x4"))  # doctest: +SKIP
"""

from diffux.cost.devices import DEVICES, Device, topology
from diffux.cost.flops import contractions
from diffux.cost.hlo import Collective, collectives, of_activations
from diffux.cost.report import Memory, Report, measure, parse_bytes, refuse

__all__ = ["DEVICES", "Collective", "Device", "Memory", "Report", "collectives", "contractions", "measure", "of_activations",
           "parse_bytes", "refuse", "topology"]  # fmt: skip

"""Compile the training step of a config and print what it costs, for this host or for devices that are not there.

  diffux compile --config ddpm_cifar10
  diffux compile --config ddpm_cifar10 --topology v5e:4x4 --memory 16GB --json report.json

Nothing is trained and no parameter is drawn (docs/cost.md). Exit status: 0 it fits, 2 something in the command cannot work,
5 a step needs more memory than a device has.
"""

from __future__ import annotations

import json
import pathlib

from diffux.cli import _flags
from diffux.errors import UserError


def parser() -> _flags.Parser:
    """The flags of the command."""
    parser = _flags.Parser("compile", __doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config by name, or a file of your own")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="another value for a key of the config")
    parser.add_argument("--topology", metavar="NAME", help="v5e:4x4, cpu:8, ... instead of this host")
    parser.add_argument("--memory", metavar="SIZE", help="of each device, as 16GB, instead of its own")
    parser.add_argument("--json", metavar="FILE", help="write the report there as well")
    _flags.add_use(parser)
    return parser


def main(arguments) -> int:
    flags, overrides = parser().parse_with_config(arguments)

    from diffux import cost, listing
    from diffux.cli import _config

    listing.use(flags.use)
    config = _config.read(flags.config, overrides)
    memory = None if flags.memory is None else cost.parse_bytes(flags.memory)
    file = flags.json and pathlib.Path(flags.json)
    if file and not file.parent.is_dir():
        raise UserError(f"--json {file} is in no directory that exists")
    report = cost.measure(config, flags.topology, memory)
    print(report)
    if file:
        try:
            file.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--json {file} cannot be written: {error.strerror}") from error
    cost.refuse(report)
    return 0

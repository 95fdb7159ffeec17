"""Train a model from a config.

  diffux train --config ddpm_digits --workdir runs/digits
  diffux train --config experiments/configs/ddpm_digits.py --workdir runs/digits --config.steps=3000
  diffux train --config mine.py --use my_parts.py --workdir runs/mine

The same command continues a run that was stopped; a larger --config.steps extends a finished one. A config is a file, or one of
`diffux list configs` by its name, and any of its keys is a flag: --config.optimizer.learning_rate=1e-3 (--print-config shows all).
The working directory ends up with samples.png, losses.png, checkpoints, metrics.jsonl, TensorBoard
events and the resolved config.json. What a step costs, before anything runs, says `diffux compile`.

On several hosts the same command is started on each: docs/many_hosts.md says how they find each other.

Exit status: 0 done, 2 something in the command cannot work, 3 the training diverged, 4 the working directory cannot be
written any more, 75 another process of the run is missing or gone, 130, 143 or 129 stopped by Ctrl-C, SIGTERM or SIGHUP after
saving.
docs/faults.md says what each leaves behind.
"""

from __future__ import annotations

import json

from diffux.cli import _flags
from diffux.errors import UserError


def parser() -> _flags.Parser:
    """The flags of the command."""
    parser = _flags.Parser("train", __doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config by name, or a file of your own")
    parser.add_argument("--workdir", metavar="DIR", help="where the run lives; made if it is missing")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="another value for a key of the config")
    parser.add_argument("--print-config", action="store_true", help="print the whole config as JSON, and do nothing else")
    parser.add_argument("--net", action="append", metavar="NAME=RUN", help="where a frozen network of the config lies now")
    parser.add("profile", metavar="N")
    _flags.add_use(parser)
    _flags.add_processes(parser)
    return parser


def main(arguments) -> int:
    flags, overrides = parser().parse_with_config(arguments)

    from diffux import listing
    from diffux.cli import _config

    listing.use(flags.use)
    config = _config.read(flags.config, overrides)
    if flags.print_config:
        print(json.dumps(config, indent=2))
        return 0
    if flags.workdir is None:
        raise UserError("--workdir is needed (see --help)")

    _flags.begin(flags)
    from diffux import training
    from diffux.training.clock import process_start

    nets = _flags.pairs("net", flags.net)
    result = training.train(config, flags.workdir, use=flags.use, nets=nets, started=process_start(), profile=flags.profile)
    return 128 + result.signal if result.signal else 0

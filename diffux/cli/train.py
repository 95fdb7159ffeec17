"""Train a diffusion model from a config.

  python experiments/train.py --config experiments/configs/ddpm_digits.py --workdir runs/digits
  python experiments/train.py --config experiments/configs/ddpm_digits.py --workdir runs/digits --config.steps=3000

The same command continues a run that was stopped; a larger --config.steps extends a finished one. Any key of the
config is a flag: --config.optimizer.learning_rate=1e-3, --config.system.channels=64. The working directory ends up
with samples.png, losses.png, checkpoints, metrics.jsonl, TensorBoard events and the resolved config.json.

On several hosts the same command is started on each: docs/many_hosts.md says how they find each other. What a step costs
is known before anything runs, also on devices that are not there (docs/cost.md):
  python experiments/train.py --config experiments/configs/ddpm_cifar10.py --compile_only --topology v5e:4x4

Exit status: 0 done, 2 something in the command cannot work, 3 the training diverged, 4 the working directory cannot be
written any more, 5 a step needs more memory than a device has (--compile_only), 75 another process of the run is missing or
gone, 130 or 143 stopped by Ctrl-C or SIGTERM after saving. docs/faults.md says what each leaves behind.
"""

from __future__ import annotations

import json
import pathlib

from diffux.cli import _flags
from diffux.errors import UserError


def main(arguments) -> int:
    parser = _flags.Parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of experiments/configs, or your own")
    parser.add_argument("--workdir", metavar="DIR", help="where the run lives; made if it is missing")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="another value for a key of the config")
    _flags.add_processes(parser)
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="trace N steps into WORKDIR/profile")
    parser.add_argument("--compile_only", action="store_true", help="compile the training step and print what it costs")
    parser.add_argument("--topology", metavar="NAME", help="for --compile_only: v5e:4x4, cpu:8, ... instead of this host")
    parser.add_argument("--memory", metavar="SIZE", help="for --compile_only: of each device, as 16GB, instead of its own")
    parser.add_argument("--json", metavar="FILE", help="for --compile_only: write the report there as well")
    flags, overrides = parser.parse_known_args(arguments)
    config = _flags.read_config(flags.config, overrides)
    if flags.compile_only:
        return compile_only(flags, config)
    for name in ("topology", "memory", "json"):
        if getattr(flags, name) is not None:
            parser.error(f"--{name} belongs to --compile_only")
    if flags.workdir is None:
        parser.error("--workdir is needed")

    _flags.begin(flags)
    from diffux import training
    from diffux.training.clock import process_start

    result = training.train(config, flags.workdir, started=process_start(), profile=flags.profile)
    return 128 + result.signal if result.signal else 0


def compile_only(flags, config) -> int:
    """Print what a training step of the config costs; a UserError with status 5 where it does not fit."""
    from diffux import cost

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
    cost.refuse(report, config)
    return 0


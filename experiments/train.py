"""Train a diffusion model from a config.

  python experiments/train.py --config experiments/configs/ddpm_digits.py --workdir runs/digits
  python experiments/train.py --config experiments/configs/ddpm_digits.py --workdir runs/digits --config.steps=3000

The same command continues a run that was stopped; a larger --config.steps extends a finished one. Any key of the
config is a flag: --config.optimizer.learning_rate=1e-3, --config.system.channels=64. The working directory ends up
with samples.png, losses.png, checkpoints, metrics.jsonl, TensorBoard events and the resolved config.json.

On several hosts the same command is started on each: docs/many_hosts.md says how they find each other.

Exit status: 0 done, 2 something in the command cannot work, 3 the training diverged, 75 another process of the run is
missing or gone, 130 or 143 stopped by Ctrl-C or SIGTERM after saving.
"""

from __future__ import annotations

import sys

import command_line


def main(arguments) -> int:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of experiments/configs, or your own")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where the run lives; made if it is missing")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="another value for a key of the config")
    command_line.add_processes(parser)
    flags, overrides = parser.parse_known_args(arguments)
    config = command_line.read_config(flags.config, overrides)

    command_line.begin(flags)
    from diffux import training
    from diffux.training.clock import process_start

    result = training.train(config, flags.workdir, started=process_start())
    return 128 + result.signal if result.signal else 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))

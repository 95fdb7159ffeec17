"""Write the weights of a trained model to one .safetensors file, with the config beside them in its header.

  python experiments/export.py --workdir runs/digits --out digits.safetensors
  python experiments/export.py --workdir runs/digits --out digits.safetensors --average power_0.075 --dtype bfloat16
  python experiments/sample.py --weights digits.safetensors --n 64 --out samples.png

Parameters are named by the keys of their tree joined by "/" and have Flax's layouts; docs/averages.md says what else is in
the file and which averages can be asked for.
"""

from __future__ import annotations

from diffux.cli import _flags


def main(arguments) -> int:
    parser = _flags.Parser(__doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of a training run")
    parser.add_argument("--out", required=True, metavar="FILE", help="a .safetensors file")
    _flags.add_weights(parser)
    parser.add_argument("--dtype", default="float32", help="of the parameters: float32, bfloat16 or float16")
    flags = parser.parse_args(arguments)

    from diffux import training

    run = training.load(flags.workdir, **_flags.weights(flags))
    print(f"written: {training.export.write(run, flags.out, dtype=flags.dtype)} (weights: {run.weights}; step {run.step})")
    return 0


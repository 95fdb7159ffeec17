"""Write the weights of a trained model to one .safetensors file, with the config beside them in its header.

  diffux export --workdir runs/digits --out digits.safetensors
  diffux export --workdir runs/digits --out digits.safetensors --average 0.995 --dtype bfloat16
  diffux sample --weights digits.safetensors --n 64 --out samples.png
  diffux export --workdir runs/ldm --layout diffusers --out pipeline

Parameters are named by the keys of their tree joined by "/" and have Flax's layouts; docs/averages.md says what else is in
the file and which averages can be asked for. --layout diffusers writes a folder instead, a pipeline that diffusers loads, of a run
of the system `ldm` on the network `stable` (docs/pretrained.md).
"""

from __future__ import annotations

from diffux.cli import _flags


def parser() -> _flags.Parser:
    """The flags of the command."""
    parser = _flags.Parser("export", __doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of a training run")
    parser.add_argument("--out", required=True, metavar="FILE", help="a .safetensors file, or a new folder with --layout")
    parser.add_argument("--layout", metavar="NAME", help="diffusers: a folder that diffusers loads; peft: low-rank updates alone")
    parser.add_argument("--net", action="append", metavar="NAME=RUN", help="where a network lies now that the run is built on")
    _flags.add_weights(parser)
    _flags.add_use(parser)
    parser.add_argument("--dtype", default="float32", help="of the parameters: float32, bfloat16 or float16")
    return parser


def main(arguments) -> int:
    flags = parser().parse(arguments)

    from diffux import listing
    from diffux.runs import export, restore

    listing.use(flags.use)
    if flags.layout is not None:
        _flags.refuse(flags, ["dtype"], "is of a .safetensors file, and a folder holds float32")
    run = restore.load(flags.workdir, nets=_flags.pairs("net", flags.net), **_flags.weights(flags))
    if flags.layout is not None:
        written = export.write_folder(run, flags.out, flags.layout)
    else:
        written = export.write(run, flags.out, dtype=flags.dtype)
    print(f"written: {written} (weights: {run.weights}; step {run.step})")
    return 0

"""Judge samples of a trained model beside held-out real data and data that are surely wrong.

  diffux evaluate --workdir runs/digits
  diffux evaluate --workdir runs/digits --n 2048 --solver ddim --steps 50
  diffux evaluate --workdir runs/digits --samples samples.npz
  diffux evaluate --workdir runs/digits --likelihood

Each kind of data, or each data set, names the figures that suit it (`diffux list figures`). Of images, a small classifier of the
real data, trained once (seconds) and kept in the cache, gives the share of recognisable samples, their class balance and the
Frechet distance in its features; the distance to the nearest train image shows copies. Of points, the sliced Wasserstein distance
to held-out ones; of heartbeats, the share that is periodic. The same figures of held-out real data and of controls that know only
the data's moments stand beside them. Writes evaluation.json and evaluation.png (left: samples, right: held-out data) into the
workdir. With --likelihood no samples are drawn: it prints held-out bits a dimension by the probability flow and writes
likelihood.json (docs/likelihood.md).
"""

from __future__ import annotations

import shutil

from diffux.cli import _flags
from diffux.errors import UserError
from diffux.files import path_of


def main(arguments) -> int:
    parser = _flags.Parser("evaluate", __doc__)
    parser.add_argument("--workdir", metavar="DIR", help="of a training run; of a --task with several models, where the figures go")
    parser.add_argument("--n", type=int, help="how many samples (512 images, 5000 points, 2000 sequences)")
    _flags.add_samples(parser)
    parser.add_argument("--samples", metavar="FILE", help=".npz that `diffux sample` wrote, instead of drawing")
    _add_likelihood(parser)
    flags = parser.parse(arguments)
    if flags.workdir is None:
        parser.error("--workdir is needed")
    if flags.n is not None and flags.n < 2:
        raise UserError(f"--n must be at least 2, got {flags.n}")
    walk, named = _flags.walk(flags), _flags.pairs("model", flags.model)

    from rich.console import Console

    from diffux import listing
    from diffux.evaluation import likelihood, runs, table

    listing.use(flags.use)
    folder = path_of(flags.workdir).absolute()
    console = Console(width=shutil.get_terminal_size((110, 24)).columns, highlight=False)  # of a file 110, or $COLUMNS
    if flags.likelihood:
        drawing = ("solver", "steps", "eta", "grid", "option", "guidance", "classifier", "given", "label", "samples", "model")
        unused = [name for name in drawing if getattr(flags, name) is not None]
        if unused:
            raise UserError(f"--{unused[0]} is of samples, and --likelihood draws none")
        nets = walk["nets"]
        found = likelihood.of_run(folder, nets=nets, **_flags.weights(flags), **_likelihood(flags))
        console.print(likelihood.table(found))
        print(f"written: {folder / 'likelihood.json'}")
        return 0
    drawing = {"task": flags.task, "given": _flags.asked(flags), "seed": flags.seed, "batch": flags.batch}
    result, written = runs.of_run(folder, named or {"model": folder}, samples=flags.samples, n=flags.n, walk=walk,
                                  weights=_flags.weights(flags), drawing=drawing, say=print)  # fmt: skip
    console.print(table(result))
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _add_likelihood(parser) -> None:
    parser.add_argument("--likelihood", action="store_true", help="held-out bits a dimension instead of samples")
    parser.add_argument("--trace", default="rademacher", metavar="HOW", help="of the divergence: exact, rademacher or gaussian")
    parser.add_argument("--probes", type=int, default=1, help="of Hutchinson's estimate, an image (1)")
    parser.add_argument("--draws", type=int, default=1, help="of the dequantization noise, an image (1)")
    parser.add_argument("--dequantizer-steps", type=int, default=0, metavar="N",
                        help="train the dequantization noise for so many steps (0: uniform noise)")  # fmt: skip
    parser.add_argument("--start", type=float, metavar="T", help="the t of the density (1e-5, or a chain's first step)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the integration (1e-4; the literature's is 1e-5)")
    parser.add_argument("--reconstruct", action="store_true", help="bound clean data instead of taking the density at --start")


def _likelihood(flags) -> dict:
    """What the flags say, as `evaluation.likelihood.held_out` takes it."""
    for name in ("probes", "draws"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(flags, name)}")
    if flags.dequantizer_steps < 0:
        raise UserError(f"--dequantizer-steps must be at least 0, got {flags.dequantizer_steps}")
    if flags.start is not None and not 0 < flags.start < 1:
        raise UserError(f"--start is a time between 0 and 1, got {flags.start}")
    if not flags.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {flags.tolerance}")
    keys = ("trace", "probes", "draws", "start", "reconstruct", "n", "seed", "batch", "dequantizer_steps")
    named = {name: getattr(flags, name) for name in keys}
    return named | {"rtol": flags.tolerance, "atol": flags.tolerance}

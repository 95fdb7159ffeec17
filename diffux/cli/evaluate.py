"""Judge samples of a trained model beside held-out real data and data that are surely wrong.

  diffux evaluate --workdir runs/digits
  diffux evaluate --workdir runs/digits --n 2048 --solver ddim --steps 50
  diffux evaluate --workdir runs/digits --samples samples.npz
  diffux evaluate --workdir runs/digits --samples samples/
  diffux evaluate --workdir runs/digits --likelihood
  diffux evaluate --workdir runs/sr3 --pairs --beside regression=runs/regression --n 64 --draws 4
  diffux evaluate --workdir runs/glide --figures relations --guidance 3

Each kind of data, or each data set, names the figures that suit it (`diffux list figures`). Of images with classes, a small
classifier of the real data, trained once (seconds) and kept in the cache, gives the share of recognisable samples, their class
balance and the Frechet distance in its features; of images without, a random network gives the features (--judge says another).
The distance to the nearest train image shows copies. Of points, the sliced Wasserstein distance
to held-out ones; of heartbeats, the share that is periodic. The same figures of held-out real data and of controls that know only
the data's moments stand beside them. Writes evaluation.json and evaluation.png (left: samples, right: held-out data) into the
workdir. With --likelihood no samples are drawn: it prints held-out bits a dimension by the probability flow and writes
likelihood.json; with --bound as well, the variational bound of a chain, term by term, and writes bound.json and bound.png
(docs/likelihood.md). With --pairs a model that is given a picture, a small one, say, restores those of held-out images, and stands
beside the enlarged picture, other runs (--beside) and the truth in one table: PSNR, SSIM, a perceptual distance, consistency with
the picture, colour, sharpness, noise and diversity; writes pairs.json and pairs.png (docs/sampling.md). With --figures relations a
model that is given captions of captioned_shapes draws --n of them each of kinds and relations that training saw and that it did
not, and a rule reads what is there: colours, shapes, numbers, which goes with which, relations; writes relations.json and .png.
"""

from __future__ import annotations

import shutil

from diffux.cli import _flags
from diffux.errors import UserError
from diffux.files import path_of
from diffux.naming import pick

_JUDGING = ("workdir", "samples", "judge", "net", "use")
_FLOW = ("trace", "probes", "dequantizer_steps", "start", "tolerance", "reconstruct")
_LIKELIHOOD = (*_FLOW, "draws", "bound")
_PAIRS = ("beside", "lpips")
_DRAWING = ("solver", "steps", "eta", "grid", "option", "guidance", "net", "classifier", "classifier_scale")
_RESTORING = (*_PAIRS, *_DRAWING, "pairs", "workdir", "n", "draws", "seed", "batch", "checkpoint", "average", "raw", "use")
_RELATING = (*_DRAWING, "figures", "workdir", "n", "seed", "batch", "task", "model", "given", "checkpoint", "average", "raw", "use")
_MEASURING = (*_LIKELIHOOD, "likelihood", "workdir", "n", "seed", "batch", "checkpoint", "average", "raw", "net", "use")


def parser() -> _flags.Parser:
    """The flags of the command."""
    parser = _flags.Parser("evaluate", __doc__)
    parser.add_argument("--workdir", metavar="DIR", help="of a training run; of a --task with several models, where the figures go")
    parser.add("n", "judged")
    _flags.add_samples(parser)
    parser.add_argument("--samples", metavar="FILE", help=".npz or folder that `diffux sample` wrote, instead of drawing")
    parser.add_argument("--judge", metavar="NAME", help="of images: classifier (where there are classes), random, or a file of "
                        "--use that defines features(images)")  # fmt: skip
    parser.add_argument("--pairs", action="store_true", help="of a model that is given a picture: its images beside the true ones")
    parser.add_argument("--beside", action="append", metavar="NAME=RUN", help="another run in the table of --pairs, drawn as it "
                        "draws by itself; several times")  # fmt: skip
    parser.add_argument("--lpips", metavar="FILE", help="weights of LPIPS, .npz or .safetensors; without them the perceptual "
                        "distance of --pairs is that of a random network")  # fmt: skip
    parser.add_argument("--figures", metavar="NAME", help="relations: of pictures by captions of shapes, whether they show what "
                        "is said")  # fmt: skip
    _add_likelihood(parser)
    return parser


def main(arguments) -> int:
    flags = parser().parse(arguments)
    if flags.workdir is None:
        raise UserError("--workdir is needed (see --help)")
    if flags.likelihood:
        _flags.refuse(flags, {*flags.said} - {*_MEASURING}, "is of samples, and --likelihood draws none")
        if flags.bound:
            _flags.refuse(flags, _FLOW, "is of the flow's density, and --bound is of the chain's steps")
        if flags.trace == "exact":
            _flags.refuse(flags, ["probes"], "is of an estimate, and --trace exact makes none")
    elif flags.pairs:
        _flags.refuse(flags, {*flags.said} - {*_RESTORING}, "does not go with --pairs, which draws what held-out pictures ask for")
    elif flags.figures is not None:
        pick("figures", flags.figures, {"relations": None})
        _flags.refuse(flags, {*flags.said} - {*_RELATING}, "does not go with --figures, which draws what captions ask for")
    elif flags.samples is not None:
        _flags.refuse(flags, {*flags.said} - {*_JUDGING}, "is of the drawing, and the --samples are drawn")
    else:
        _flags.refuse(flags, _PAIRS, "belongs to --pairs")
        _flags.refuse(flags, ["draws"], "belongs to --pairs and to --likelihood")
        _flags.refuse(flags, _LIKELIHOOD, "belongs to --likelihood")
    walk, named, beside = _flags.walk(flags), _flags.pairs("model", flags.model), _flags.pairs("beside", flags.beside)

    from rich.console import Console

    from diffux import listing
    from diffux.evaluation import bound, likelihood, pairs, relations, runs, table

    listing.use(flags.use)
    folder = path_of(flags.workdir).absolute()
    console = Console(width=shutil.get_terminal_size((110, 24)).columns, highlight=False)  # of a file 110, or $COLUMNS
    if flags.likelihood:
        measure, files = (bound, ["bound.json", "bound.png"]) if flags.bound else (likelihood, ["likelihood.json"])
        found = measure.of_run(folder, nets=walk["nets"], **_flags.weights(flags), **_likelihood(flags))
        console.print(measure.table(found))
        print(f"written: {', '.join(str(folder / file) for file in files)}")
        return 0
    if flags.pairs:
        options = {name: getattr(flags, name) for name in ("n", "draws", "batch", "seed", "lpips")}
        found, written = pairs.of_run(folder, beside, walk=walk, weights=_flags.weights(flags), **options)
        console.print(pairs.table(found))
        print(f"written: {', '.join(map(str, written))}")
        return 0
    if flags.figures is not None:
        drawn = {"task": flags.task, "given": _flags.asked(flags), "seed": flags.seed, "batch": flags.batch}
        found, written = relations.of_run(folder, named or {"model": folder}, n=flags.n, walk=walk, drawn=drawn,
                                          weights=_flags.weights(flags))  # fmt: skip
        console.print(relations.table(found))
        print(f"written: {', '.join(map(str, written))}")
        return 0
    judged = {"judge": flags.judge, "weights": _flags.weights(flags)}
    drawing = {"task": flags.task, "given": _flags.asked(flags), "seed": flags.seed, "batch": flags.batch}
    result, written = runs.of_run(folder, named or {"model": folder}, samples=flags.samples, n=flags.n, walk=walk,
                                  drawing=drawing, say=print, **judged)  # fmt: skip
    console.print(table(result))
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _add_likelihood(parser) -> None:
    parser.add_argument("--likelihood", action="store_true", help="held-out bits a dimension instead of samples")
    parser.add_argument("--trace", default="rademacher", metavar="HOW", help="of the divergence: exact, rademacher or gaussian")
    parser.add("probes")
    parser.add("draws")
    parser.add("dequantizer-steps", metavar="N")
    parser.add("start", metavar="T")
    parser.add("tolerance")
    parser.add_argument("--reconstruct", action="store_true", help="bound clean data instead of taking the density at --start")
    parser.add_argument("--bound", action="store_true", help="of a chain: its bound, term by term, not the flow's density")


def _likelihood(flags) -> dict:
    """What the flags say, as `held_out` of `evaluation.likelihood` and of `evaluation.bound` takes it."""
    named = {name: getattr(flags, name) for name in ("n", "draws", "batch", "seed")}
    if flags.bound:
        return named
    named |= {name: getattr(flags, name) for name in ("trace", "probes", "start", "reconstruct", "dequantizer_steps")}
    return named | {"rtol": flags.tolerance, "atol": flags.tolerance}

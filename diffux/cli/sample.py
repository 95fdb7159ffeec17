"""Draw samples from a trained model.

  python experiments/sample.py --workdir runs/digits --n 64 --solver ddim --steps 50 --out samples.png
  python experiments/sample.py --workdir runs/digits --n 512 --solver ancestral --steps 1000 --out samples.npz
  python experiments/sample.py --workdir runs/digits --n 8 --trajectory walk.gif --out samples.png
  python experiments/sample.py --workdir runs/digits --solver dpm_solver_pp --steps 15 --option order=3 --out samples.png
  python experiments/sample.py --workdir runs/digits --average power_0.05 --out samples.png
  python experiments/sample.py --workdir runs/plain --classifier runs/classifier --label 3 --out threes.png

Without --solver and --steps the model's own are used. Sample number i of a seed is the same for every --n and --batch.
A .png is one picture of all samples: a grid of images, a scatter of points, a raster of sequences. A .npz holds `images`
(float32 in [0, 1], shape (n, H, W, C)), or `samples` where they are none (float32, points (n, 2), sequences (n, L)),
`labels` where the model has classes, and how they were drawn.
"""

from __future__ import annotations

import pathlib

from diffux.cli import _flags
from diffux.errors import UserError

PASSED_ON = ("n", "seed", "batch", "frames", "classifier", "classifier_scale")


def main(arguments) -> int:
    parser = _flags.Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", metavar="DIR", help="of a training run")
    source.add_argument("--weights", metavar="FILE", help="that export.py wrote, instead of a run")
    parser.add_argument("--out", required=True, action="append", metavar="FILE", help=".png or .npz; may be given twice")
    parser.add_argument("--n", type=int, default=64, help="how many samples (64)")
    _flags.add_walk(parser)
    parser.add_argument("--classifier", metavar="DIR", help="a run of noisy_classifier, to guide towards the labels")
    parser.add_argument("--classifier-scale", type=float, default=1.0, metavar="SCALE", help="of its gradient; 0 is none (1)")
    parser.add_argument("--label", metavar="L[,L...]", help="classes to draw, in turn; every class by default")
    parser.add_argument("--trajectory", metavar="FILE", help="the walk of the first samples: a .png strip or a .gif")
    parser.add_argument("--frames", type=int, default=10, help="states of the trajectory (10)")
    flags = parser.parse_args(arguments)

    from diffux.sampling import files as sampling

    chosen = _flags.weights(flags)
    sampling.sample(
        flags.workdir or flags.weights,
        [pathlib.Path(out) for out in flags.out],
        trajectory=pathlib.Path(flags.trajectory) if flags.trajectory else None,
        labels=_labels(flags.label),
        checkpoint=chosen.pop("step"),
        **chosen,
        **_flags.walk(flags),
        **{key: getattr(flags, key) for key in PASSED_ON},
    )
    return 0


def _labels(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--label is a number or several with commas between, got {text!r}") from error


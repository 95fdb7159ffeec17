"""Draw samples from trained models.

  diffux sample --workdir runs/digits --n 64 --solver ddim --steps 50 --out samples.png
  diffux sample --workdir runs/digits --label 3,5 --guidance 2 --out samples.npz
  diffux sample --workdir runs/digits --n 50000 --out samples/
  diffux sample --workdir runs/digits --n 8 --trajectory walk.gif --out samples.png
  diffux sample --workdir runs/digits --solver "dpm_solver(order=3)" --steps 15 --average 0.995 --out samples.png
  diffux sample --workdir runs/plain --guidance "classifier(3)" --net classifier=runs/classifier --label 3 --out threes.png
  diffux sample --workdir runs/cfg --guidance "classifier_free([0,1,2,4])" --n 8 --out sweep.png
  diffux sample --task cascade --model base=runs/small --model up=runs/up --out large.png
  diffux sample --task restore --model model=runs/sr --given low=photo.png --out restored.png
  diffux sample --task "outpaint(right=64)" --model model=runs/uncropping --given image=photo.png --out wide.png
  diffux sample --pretrained sd-v1-5 --given caption="a red cat" --guidance "classifier_free(7.5)" --n 4 --out cats.png
  diffux sample --pretrained sd-v1-5 --given caption="a red cat" --task "edit(start=0.6)" --given image=photo.png --out cat.png

Without --solver and --steps the model's own are used. Sample number i of a seed is the same for every --n and --batch.
Whatever the model is given is asked by --given NAME=WORD; of what is not asked every class is drawn in turn, or held-out examples
are shown to it. A .png is one picture of all samples: a grid of images, a scatter of points, a raster of bits. A .npz holds
`images` (float32 in [0, 1], shape (n, H, W, C)), or `samples` of other data, what was asked, and how they were drawn. A name with
a slash at its end, or of a folder, is for single files, 000012_cat.png; the same command continues a folder that was left half way.
A list in the guidance draws the same samples at each of its numbers, as one labelled picture.
The tasks `restore` and `outpaint` take a picture, or each of a folder, at its own size, and write the source and what comes of it
beside each other as well.
--pretrained takes a pipeline of diffusers on disk, whose schedule, levels and solver are the model's own; --lora adds low-rank
updates to its network, or to that of a run that began with one.
"""

from __future__ import annotations

import pathlib

from diffux.cli import _flags


def parser() -> _flags.Parser:
    """The flags of the command."""
    parser = _flags.Parser("sample", __doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--workdir", metavar="DIR", help="of a training run")
    source.add_argument("--weights", metavar="FILE", help="that `diffux export` wrote, instead of a run")
    source.add_argument("--pretrained", metavar="DIR", help="a pipeline of diffusers (docs/pretrained.md), instead of a run")
    parser.add_argument("--out", required=True, action="append", metavar="FILE",
                        help=".png, .npz, or a folder/ for a file each; several times")  # fmt: skip
    parser.add("n")
    _flags.add_samples(parser)
    parser.add_argument("--lora", metavar="FILE", help="low-rank updates of the network, as peft and diffusers store them")
    parser.add("lora-scale")
    parser.add_argument("--trajectory", metavar="FILE", help="the walk of the first samples: a .png strip or a .gif")
    parser.add("frames")
    return parser


def main(arguments) -> int:
    flags = parser().parse(arguments)
    if flags.trajectory is None:
        _flags.refuse(flags, ["frames"], "belongs to --trajectory")
    if flags.lora is None:
        _flags.refuse(flags, ["lora_scale"], "belongs to --lora")
    runs, walk = _flags.directories(flags, flags.workdir or flags.weights or flags.pretrained), _flags.walk(flags)
    if flags.lora is not None:
        walk |= {"lora": flags.lora, "lora_scale": 1.0 if flags.lora_scale is None else flags.lora_scale}

    from diffux import listing, tasks
    from diffux.sampling import files, one_by_one, sweep

    listing.use(flags.use)
    guided = sweep.variants(walk["guidance"])
    if guided:
        _flags.refuse(flags, ["trajectory"], "is of one walk, and the guidance has several")
        models = lambda guidance: files.models(runs, **walk | {"guidance": guidance}, **_flags.weights(flags))  # noqa: E731
        sweep.sweep(models, guided, flags.out, n=flags.n, task=flags.task, given=_flags.asked(flags), seed=flags.seed,
                    batch=flags.batch, about=walk)  # fmt: skip
        return 0
    files.check(flags.n, flags.batch, flags.frames, flags.seed)
    found = files.models(runs, **walk, **_flags.weights(flags))
    common = {"task": flags.task, "given": _flags.asked(flags), "seed": flags.seed, "about": walk}
    if tasks.task(flags.task, found).pictures:
        _flags.refuse(flags, ["n", "batch", "trajectory"], f"is of samples, and the task {flags.task} makes one of each picture")
        one_by_one.sample(found, flags.out, **common)
        return 0
    trajectory = pathlib.Path(flags.trajectory) if flags.trajectory else None
    files.sample(found, flags.out, n=flags.n, batch=flags.batch, trajectory=trajectory, frames=flags.frames, **common)
    return 0

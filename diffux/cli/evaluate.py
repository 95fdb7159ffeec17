"""Judge samples of a model trained on an embedded data set: digits, patches/16, patches/32, swiss_roll, heartbeats.

  python experiments/evaluate.py --workdir runs/digits
  python experiments/evaluate.py --workdir runs/digits --n 2048 --solver ddim --steps 50
  python experiments/evaluate.py --workdir runs/digits --samples samples.npz
  python experiments/evaluate.py --workdir runs/digits --likelihood

Of images, a small classifier of the real data, trained once (seconds) and kept in the cache, gives the share of
recognisable samples, their class balance and the Frechet distance in its features; the distance to the nearest train
image shows copies. Of points, the sliced Wasserstein distance to held-out ones; of sequences, the share that is
periodic. The same figures of held-out real data and of controls that know only the data's moments stand beside them.
Writes evaluation.json and evaluation.png (left: samples, right: held-out data) into the workdir. With --likelihood no
samples are drawn: it prints held-out bits a dimension by the probability flow and writes likelihood.json (docs/likelihood.md).
"""

from __future__ import annotations

import pathlib
import sys

from diffux.cli import _flags
from diffux.errors import UserError


def main(arguments) -> int:
    parser = _flags.Parser(__doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of a training run")
    parser.add_argument("--n", type=int, help="how many samples (512 images, 5000 points, 2000 sequences)")
    _flags.add_walk(parser)
    parser.add_argument("--samples", metavar="FILE", help=".npz that sample.py wrote, instead of drawing")
    _flags.add_likelihood(parser)
    flags = parser.parse_args(arguments)
    for name in ("n", "batch", "steps"):
        least = 2 if name == "n" else 1
        if getattr(flags, name) is not None and getattr(flags, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(flags, name)}")
    section = _flags.walk(flags)

    from rich.console import Console

    from diffux import evaluation, training
    from diffux.devices.compilation_cache import use_compilation_cache
    from diffux.errors import explained
    from diffux.evaluation import kinds, likelihood, runs
    from diffux.runs import folder as workdir

    folder = pathlib.Path(flags.workdir).expanduser().absolute()
    config = workdir.saved_config(folder)
    if config is None:
        missing = f"{folder} holds no run" if folder.is_dir() else f"there is no folder {folder}"
        raise UserError(missing)
    use_compilation_cache()
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    if flags.likelihood:
        found = likelihood.evaluate(folder, **_flags.weights(flags), **_flags.likelihood(flags))
        console.print(likelihood.table(found))
        print(f"written: {folder / 'likelihood.json'}")
        return 0
    dataset = config["data"]["name"]
    with explained():  # before anything is drawn
        kind = kinds.kind(dataset)
    workdir.create(folder)

    if flags.samples:
        samples, drawn_by = runs.read(flags.samples)
        frozen = {}
    else:
        n = kind.SAMPLES if flags.n is None else flags.n
        run = training.load(folder, **_flags.weights(flags))
        samples, drawn_by = runs.draw(run, n, section, seed=flags.seed, batch=flags.batch)
        frozen = run.variables.frozen
    with explained():
        samples, through = kind.check(samples, dataset), runs.through_codec(config, frozen)
        result = evaluation.evaluate(samples, dataset, say=print, through=through)
        picture = runs.picture(folder / "evaluation.png", samples, dataset, through)
    written = runs.write(folder, result | {"samples": drawn_by})
    console.print(evaluation.table(result))
    print(f"written: {written}, {picture}")
    return 0


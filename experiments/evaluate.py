"""Judge samples of a model trained on an embedded data set (digits, patches/16, patches/32).

  python experiments/evaluate.py --workdir runs/digits
  python experiments/evaluate.py --workdir runs/digits --n 2048 --solver ddim --steps 50
  python experiments/evaluate.py --workdir runs/digits --samples samples.npz

A small classifier of the real data, trained once (seconds) and kept in the cache, gives the share of recognisable
samples, their class balance and the Frechet distance in its features; the distance to the nearest train image shows
copies. The same figures of held-out real data, of a Gaussian with the train data's pixel covariance and of noise stand
beside them. Writes evaluation.json and evaluation.png (left: samples, right: held-out images) into the workdir.
"""

from __future__ import annotations

import json
import pathlib
import sys
import zipfile

import command_line

PICTURED = 64


def main(arguments) -> int:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of a training run")
    parser.add_argument("--n", type=int, default=512, help="how many samples (512)")
    parser.add_argument("--solver", metavar="NAME", help="ddim, unipc, ... (docs/solvers.md); the model's own by default")
    parser.add_argument("--steps", type=int, help="steps of the walk; the model's own number by default")
    parser.add_argument("--eta", type=float, help="share of noise of ddim, 0 (deterministic) to 1; 0 by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256, help="samples drawn at once (256)")
    parser.add_argument("--checkpoint", default="last", metavar="STEP", help="last, best (held-out loss), or a step")
    parser.add_argument("--raw", action="store_true", help="the weights themselves instead of their average")
    parser.add_argument("--samples", metavar="FILE", help=".npz with `images` (n, H, W, C) in [0, 1], instead of drawing")
    flags = parser.parse_args(arguments)
    for name in ("n", "batch", "steps"):
        least = 2 if name == "n" else 1
        if getattr(flags, name) is not None and getattr(flags, name) < least:
            raise command_line.UserError(f"--{name} must be at least {least}, got {getattr(flags, name)}")

    import numpy as np
    from rich.console import Console

    from diffux import data, evaluation
    from diffux.evaluation.figures import check
    from diffux.evaluation.recipes import canonical
    from diffux.training import pictures, workdir
    from diffux.training.cache import use_compilation_cache
    from diffux.training.errors import explained

    folder = pathlib.Path(flags.workdir).expanduser().absolute()
    config = workdir.saved_config(folder)
    if config is None:
        missing = f"{folder} holds no run" if folder.is_dir() else f"there is no folder {folder}"
        raise command_line.UserError(missing)
    use_compilation_cache()
    with explained():  # before anything is drawn
        dataset = canonical(config["data"]["name"])
        shape = data.load(dataset, split="train").shape
    workdir.create(folder)

    images, drawn_by = _read(flags) if flags.samples else _draw(flags)
    with explained():
        images = check(images, shape, dataset)
        result = evaluation.evaluate(images, dataset, say=print)
        held_out = data.arrays(data.load(dataset, split="test"))["image"] / np.float32(255)
    result["samples"] = drawn_by
    part = folder / ".evaluation.json.part"
    part.write_text(json.dumps(result, indent=2) + "\n")
    part.replace(folder / "evaluation.json")

    some = min(PICTURED, len(images), len(held_out))
    order = np.random.default_rng(0).permutation(len(held_out))
    left, right = pictures.tile(images[:some]), pictures.tile(held_out[order[:some]])
    gap = np.full((len(left), 24, left.shape[-1]), 255, np.uint8)
    pictures.save(folder / "evaluation.png", np.concatenate([left, gap, right], axis=1))

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(evaluation.table(result))
    print(f"written: {folder / 'evaluation.json'}, {folder / 'evaluation.png'}")
    return 0


def _draw(flags):
    import numpy as np

    from diffux.training import load, parts, sampling
    from diffux.training.progress import Progress

    run = load(flags.workdir, raw=flags.raw, step=int(flags.checkpoint) if flags.checkpoint.isdigit() else flags.checkpoint)
    section = {"solver": flags.solver, "steps": flags.steps, "eta": flags.eta, "grid": None, "guidance": None, "options": {}}
    walk = parts.walk(section, run.system)
    steps = flags.steps or run.system.steps
    with Progress("sampling", -(-flags.n // min(flags.batch, flags.n)) * steps) as progress:
        report = sampling.Report(progress)
        drawn = sampling.draw(run, flags.n, seed=flags.seed, batch=flags.batch, walk=walk, progress=report)
        images = np.concatenate([batch for batch, _ in drawn])
    solver = flags.solver or type(run.system.solver).__name__.lower()
    weights = "raw" if flags.raw else "ema"
    how = {"solver": solver, "steps": steps, "eta": flags.eta, "seed": flags.seed}
    return images, how | {"checkpoint": run.step, "weights": weights}


def _read(flags):
    import numpy as np

    try:
        with np.load(flags.samples) as file:
            images = file["images"]
    except FileNotFoundError as error:
        raise command_line.UserError(f"there is no file {flags.samples}") from error
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        wanted = "is not a .npz file with an array named images"
        raise command_line.UserError(f"{flags.samples} {wanted}") from error
    return images, {"file": str(flags.samples)}


if __name__ == "__main__":
    sys.exit(command_line.run(main))

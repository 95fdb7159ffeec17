"""The picture of the README: real digits, and samples of two trained runs by four walks.

  python experiments/picture.py --ddpm runs/digits --ncsn runs/ncsn_digits --out docs/samples.png

The samples are numbers 0 to 19 of seed 0, unselected; label i mod 10 is asked of the i-th where the model has classes.
"""

from __future__ import annotations

import pathlib
import sys

import door  # noqa: F401 - finds the library of a clone that is not installed

from diffux.cli import _flags

COLUMNS = 20


def main(arguments) -> int:
    parser = _flags.Parser(__doc__)
    parser.add_argument("--ddpm", required=True, metavar="DIR", help="workdir of a DDPM run on digits")
    parser.add_argument("--ncsn", required=True, metavar="DIR", help="workdir of an NCSN run on digits")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="FILE.png")
    flags = parser.parse_args(arguments)

    import matplotlib
    import numpy as np

    from diffux import data, solvers, training
    from diffux.devices.compilation_cache import use_compilation_cache
    from diffux.sampling import files as sampling

    matplotlib.use("Agg")
    from matplotlib import pyplot

    use_compilation_cache()
    ddpm, ncsn = training.load(flags.ddpm), training.load(flags.ncsn)
    walks = {
        "DDPM, ancestral, 1000 steps": (ddpm, {"steps": 1000}),
        "DDPM, DDIM, 50 steps": (ddpm, {"solver": solvers.ddim(), "steps": 50}),
        "DDPM, DDIM, 20 steps": (ddpm, {"solver": solvers.ddim(), "steps": 20}),
        "NCSN, annealed Langevin": (ncsn, {}),
    }
    held_out = data.arrays(data.load("digits", split="test"))
    first = [np.flatnonzero(held_out["label"] == i % 10)[i // 10] for i in range(COLUMNS)]
    rows = {"held-out real digits": held_out["image"][first] / 255}
    for name, (run, walk) in walks.items():
        rows[name] = np.concatenate([images for images, _ in sampling.draw(run, COLUMNS, walk=walk)])

    figure, axes = pyplot.subplots(len(rows), 1, figsize=(10, 3.6))
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        strip = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)), constant_values=0.35).swapaxes(0, 1)
        axis.imshow(strip.reshape(strip.shape[0], -1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=8, loc="left", pad=2)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(flags.out, dpi=120)
    print(f"written: {flags.out}")
    return 0


if __name__ == "__main__":
    sys.exit(_flags.run(main))

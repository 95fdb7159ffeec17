"""What conditioning augmentation is worth to a cascade whose earlier stages err (Ho et al., 2022, sec. 4): `cdm_digits`, 4 to 8
pixels, and `cdm_mnist`, 7 to 14 to 28.

  python experiments/benchmarks/cascade.py --runs runs/cascades

Trains what is missing in the folder by seeds 0, 1 and 2: the earlier stages, the last one, which enlarges with noise on what it
is given, and the same without (the control). Draws samples of each class as often; the last stage is given the smaller ones as
they are, and with errors: independent normal numbers of standard deviation 0.15, of pixels in [-1, 1]. Both last stages enlarge
both, the first one at several levels of its own noise. Writes results/cascade_cpu.json and docs/cascade.png. Frechet: the
distance to the training split in the features of the data set's own classifier. Lost: the distance with errors less that without.
"""

from __future__ import annotations

import pathlib

import harness
import matplotlib.pyplot as plt
import numpy as np

from diffux import sampling
from diffux.files import aside

SEEDS, ERROR = (0, 1, 2), 0.15 / 2  # of pixels in [0, 1]
LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
CASCADES = {
    "digits": {"data": "digits", "stages": ("cdm_digits", "cdm_digits:up"), "control": "cdm_digits:control", "n": 512},
    "mnist": {"data": "mnist_5k", "stages": ("cdm_mnist", "cdm_mnist:up_14", "cdm_mnist:up_28"), "control": "cdm_mnist:control",
              "n": 256},
}
STEPS = 50
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def cascade(folder: pathlib.Path, name: str) -> dict:
    about = CASCADES[name]
    n, (figures, held_out, judge) = about["n"], harness.judged(about["data"])
    label = {"label": ",".join(str(i % 10) for i in range(n))}
    rows: dict = {"augmented": {level: [] for level in LEVELS}, "control": []}
    for seed in SEEDS:
        trained = lambda config, seed=seed: harness.run(folder, f"{config.replace(':', '_')}_{seed}", config,  # noqa: E731
                                                        f"--config.seed={seed}")  # fmt: skip
        *earlier, up = map(trained, about["stages"])
        control = trained(about["control"])
        small = sampling.samples(earlier[0], n, given=label, seed=seed, steps=STEPS)
        for run in earlier[1:]:
            small = sampling.samples(run, n, given={**label, "low": small}, seed=seed, steps=STEPS)
        wrong = small + ERROR * np.random.default_rng(seed).standard_normal(small.shape).astype(np.float32)
        pair = {"exact": small, "wrong": np.clip(wrong, 0, 1)}

        def enlarged(run, seed=seed, pair=pair, **level):
            draw = lambda low: sampling.samples(run, n, given={**label, "low": low, **level}, seed=seed, steps=STEPS)  # noqa: E731
            return {kind: figures(draw(low)) for kind, low in pair.items()}

        rows["control"].append(enlarged(control))
        print(name, seed, "control", rows["control"][-1], flush=True)
        for level in LEVELS:
            rows["augmented"][level].append(enlarged(up, low_level=level))
            print(name, seed, level, rows["augmented"][level][-1], flush=True)
    return {"rows": rows, "held out": held_out, "n": n, "steps": STEPS, "judge": judge, "error": 2 * ERROR}


def picture(results: dict) -> None:
    """Docs' picture: the distance over levels of noise, with and without errors, beside the control; bands are the seeds' range."""
    names = [name for name in CASCADES if name in results]
    figure, axes = plt.subplots(1, len(names), figsize=(5.5 * len(names), 4.2), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        rows = results[name]["rows"]
        for kind, colour in (("exact", "#0072b2"), ("wrong", "#d55e00")):
            said = {"exact": "samples of the stage before", "wrong": "the same with errors"}[kind]
            values = np.asarray([[one[kind]["frechet"] for one in seeds] for seeds in rows["augmented"].values()])
            at = [float(level) for level in rows["augmented"]]
            axis.plot(at, values.mean(1), "o-", color=colour, label=said)
            axis.fill_between(at, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
            control = [one[kind]["frechet"] for one in rows["control"]]
            axis.axhspan(min(control), max(control), color=colour, alpha=0.12, linewidth=0)
            axis.axhline(np.mean(control), color=colour, linestyle=":", label=f"{said}, trained without noise")
        axis.set(xlabel="level t of the noise on what is given", ylabel="Frechet", title=name, ylim=0)
    axes[0, 0].legend(frameon=False, fontsize=8)
    with aside(DOCS / "cascade.png") as path:
        figure.savefig(path, format="png", dpi=110)


def main(arguments=None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="*", default=list(CASCADES), choices=list(CASCADES), help="cascades to measure")
    options = parser.parse_args(arguments)
    results = harness.record("cascade", {name: lambda name=name: cascade(options.runs, name) for name in options.only}, options.out)
    if options.out is None:
        picture(results)


if __name__ == "__main__":
    main()

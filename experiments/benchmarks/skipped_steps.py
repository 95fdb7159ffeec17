"""What it costs to leave out the first reverse steps, with linear and with cosine betas (Nichol and Dhariwal, 2021, fig. 4).

  python experiments/benchmarks/skipped_steps.py --runs runs/mnist

Trains what is missing in the folder, `ddpm_mnist` and `ddpm_mnist:cosine` by seeds 0, 1 and 2, and draws 256 digits by ancestral
sampling in 50 of the 1000 steps, less the noisiest ones: white noise is put in where the walk begins, as it is at its usual start.
Writes results/skipped_steps_cpu.json and docs/skipped_steps.png. Frechet: the distance to the training split in the features of the
data set's own classifier, of the same count for all.
"""

from __future__ import annotations

import pathlib

import harness
import matplotlib.pyplot as plt
import numpy as np

from diffux import grids, sampling
from diffux.files import aside

SEEDS, N, STEPS = (0, 1, 2), 256, 50
SKIPPED = (0.0, 0.1, 0.2, 0.3)
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def samples(run, skipped: float, seed: int) -> np.ndarray:
    """Digits of the classes 0, 1, ... 9 in turn, from white noise at t = 1 - skipped."""
    t = grids.discrete(1000)(run.frozen.process.schedule, STEPS).t[:-1]
    t = np.round(np.asarray(t, np.float64) * 1000) / 1000
    t = t[t <= 1 - skipped + 1e-9]
    label = {"label": ",".join(str(i % 10) for i in range(N))}
    return sampling.samples(run, N, given=label, seed=seed, solver="ancestral", grid=grids.given(t), steps=len(t))


def measure(folder: pathlib.Path) -> dict:
    figures, held_out, judge = harness.judged("mnist_5k")
    rows: dict = {betas: {skipped: [] for skipped in SKIPPED} for betas in ("linear", "cosine")}
    for seed in SEEDS:
        for betas, row in rows.items():
            run = harness.run(folder, f"{betas}_{seed}", f"ddpm_mnist:{betas}", f"--config.seed={seed}")
            for skipped in SKIPPED:
                row[skipped].append(figures(samples(run, skipped, seed)))
                print(seed, betas, skipped, row[skipped][-1], flush=True)
    return {"rows": rows, "held out": held_out, "n": N, "steps": STEPS, "judge": judge}


def picture(results: dict) -> None:
    """Docs' picture: both figures over the share left out; bands are the seeds' range."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, name, factor in zip(axes, ("frechet", "recognisable"), (1, 100), strict=True):
        for (betas, row), colour in zip(results["rows"].items(), ("#0072b2", "#d55e00"), strict=True):
            at = [100 * float(skipped) for skipped in row]
            values = factor * np.asarray([[one[name] for one in seeds] for seeds in row.values()])
            axis.plot(at, values.mean(1), "o-", color=colour, label=f"{betas} betas")
            axis.fill_between(at, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
        axis.axhline(factor * results["held out"][name], color="black", linestyle="--", linewidth=1, label="held-out digits")
        axis.set(xlabel="first reverse steps left out (%)", ylabel={"frechet": "Frechet", "recognisable": "recognisable (%)"}[name])
    axes[0].legend(frameon=False)
    with aside(DOCS / "skipped_steps.png") as path:
        figure.savefig(path, format="png", dpi=110)


def main(arguments=None) -> None:
    options = harness.parser(__doc__).parse_args(arguments)
    results = harness.record("skipped_steps", {"skipped": lambda: measure(options.runs)}, options.out)
    if options.out is None:
        picture(results["skipped"])


if __name__ == "__main__":
    main()

"""The picture of the README: inpainting and super-resolution of held-out photographs, a walk in the plane, solvers' errors.

  diffux train --config ddpm_patches --workdir runs/patches
  diffux train --config diffusion2015_swiss_roll --workdir runs/swiss_roll
  python experiments/picture.py --patches runs/patches --plane runs/swiss_roll

The patches are the held-out ones with the most contrast of seven photographs, and the samples those of seed 0, unselected.
What was measured acts through `guidance.posterior_sampling` on a model that has never seen a mask.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import door  # noqa: F401 - finds the library of a clone that is not installed

from diffux.files import aside

EXPERIMENTS = pathlib.Path(__file__).resolve().parent

COLUMNS, STEPS, LEFT, LOW = 7, 100, 5, 4
TIMES = (0.0, 0.6, 0.8, 1.0)
"""The parts of the walk in the plane that are drawn, 1 being its end."""
SOLVERS = ("ddim", "heun", "dpm_solver_pp_2m", "dpm_solver_pp_3m", "deis-3", "unipc-3")


def restored(run) -> dict[str, dict]:
    """{panel: {row: images (COLUMNS, H, W, C) in [0, 1]}} of a run on patches."""
    import numpy as np

    from diffux import data, guidance, operators, sampling

    held_out = data.arrays(run.plan.data.sources()[1])
    contrast = (held_out["image"] / 255).std((1, 2)).mean(-1)
    chosen = [np.argmax(np.where(held_out["label"] == label, contrast, -1)) for label in range(COLUMNS)]
    real, label = held_out["image"][chosen] / 255, held_out["label"][chosen]
    shape = real.shape[1:]
    missing = np.zeros(shape, bool)
    missing[LEFT : shape[0] - LEFT, LEFT : shape[1] - LEFT] = True
    pool = operators.average_pool(LOW)
    small = np.asarray(pool(real))
    measured = {
        "inpainting": (operators.mask(~missing), "known", np.where(missing, 0.35, real)),
        f"super-resolution, {shape[0] // LOW}x{shape[1] // LOW} to {shape[0]}x{shape[1]}":
            (pool, "known", small.repeat(LOW, 1).repeat(LOW, 2)),
    }  # fmt: skip
    panels = {}
    for name, (operator, known, shown) in measured.items():
        y = np.asarray(operator((2 * real - 1).astype(np.float32)))
        guided = guidance.posterior_sampling(operator, np.concatenate([y, y]), 0.05, guidance.tweedie(iterations=10))
        drawn = sampling.samples(run, 2 * COLUMNS, given={"label": np.concatenate([label, label])}, steps=STEPS, guidance=guided)
        panels[name] = {known: shown, "drawn": drawn[:COLUMNS], "another": drawn[COLUMNS:], "photograph": real}
    return panels


def walk(run, n: int = 1500) -> list:
    """Points (n, 2) at the parts TIMES of a walk in the plane."""
    from diffux.sampling import draw

    drawn = next(draw.draw(run, n, batch=n, save=run.steps))
    states = drawn["trajectory"]
    return [states[round(at * (len(states) - 1))] for at in TIMES]


def errors() -> tuple[dict, float]:
    """({solver: (evaluations, errors)}, the error that no solver can go below) on the mixture of `solver_figure`."""
    sys.path.insert(0, str(EXPERIMENTS / "benchmarks"))
    import jax
    import solver_figure
    import solver_table

    with jax.enable_x64(True):
        problem = solver_table.Problem(solver_figure.MOST)
        return solver_figure.curves(problem, 12, SOLVERS), problem.last_step()


def strips(axes, rows: dict, title: str) -> None:
    """Rows of images, each with its name at the left."""
    import numpy as np

    pad = ((0, 0), (1, 1), (1, 1), (0, 0))
    lines = [np.concatenate(list(np.pad(images, pad, constant_values=1)), axis=1) for images in rows.values()]
    axes.imshow(np.concatenate(lines).clip(0, 1), interpolation="nearest")
    height = lines[0].shape[0]
    axes.set(xticks=[], yticks=[height * (i + 0.5) for i in range(len(rows))], title=title)
    axes.set_yticklabels(rows, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def figure(panels: dict, states: list, found: dict, floor: float, out: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = pyplot.figure(figsize=(11, 6.6), layout="constrained")
    above, below = drawn.subfigures(2, 1, height_ratios=(1.35, 1))
    for axes, (title, rows) in zip(above.subplots(1, 2), panels.items(), strict=True):
        strips(axes, rows, title)
    left, right = below.subfigures(1, 2, width_ratios=(2, 1))
    left.suptitle("from noise to a swiss roll (Sohl-Dickstein et al., 2015)", fontsize=12)
    for axes, points, at in zip(left.subplots(1, len(TIMES)), states, TIMES, strict=True):
        axes.scatter(*points.T, s=1.5, color="#0072b2", linewidths=0)
        axes.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=[], yticks=[], aspect="equal")
        axes.set_xlabel("data" if at == 1 else "noise" if at == 0 else f"{at:.0%} of the walk", fontsize=8)
    axes = right.subplots()
    for name, (evaluations, error) in found.items():
        axes.plot(evaluations, error, marker=".", linewidth=1.2, label=name)
    axes.axhline(floor, color="0.5", linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", title="error of solvers", xlabel="network evaluations")
    axes.legend(fontsize=7, frameon=False)
    axes.grid(True, color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    with aside(out) as part:
        drawn.savefig(part, dpi=110, format="png")
    pyplot.close(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", required=True, metavar="DIR", help="a run of ddpm_patches")
    parser.add_argument("--plane", required=True, metavar="DIR", help="a run of diffusion2015_swiss_roll")
    parser.add_argument("--out", type=pathlib.Path, default=EXPERIMENTS.parent / "docs/picture.png", metavar="FILE.png")
    flags = parser.parse_args()

    from diffux import training
    from diffux.devices.compilation_cache import use_compilation_cache

    use_compilation_cache()
    panels, states = restored(training.load(flags.patches)), walk(training.load(flags.plane))
    figure(panels, states, *errors(), flags.out)
    print(f"written: {flags.out}")


if __name__ == "__main__":
    main()

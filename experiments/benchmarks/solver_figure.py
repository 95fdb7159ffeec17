"""Draws docs/solver_errors.png: error against network evaluations, 5 to 200, for every solver on a mixture with known truth.

  python experiments/benchmarks/solver_figure.py
  python experiments/benchmarks/solver_figure.py --out errors.png --points 16

The mixture, the grid and the two measures of error are those of `sampling.py --error`; evaluations are counted. Prints the
solvers as it goes, a minute or two on two processors.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import solver_table
from matplotlib.ticker import NullFormatter, ScalarFormatter

from diffux.files import aside

FEWEST, MOST, HIGHEST = 5, 200, 3.0
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#11a579", "#e73f74"]
MARKERS = "osD^v<>Ph*"


def curves(problem, points: int, only=None) -> dict[str, tuple[list, list]]:
    """name -> (evaluations, errors), of the names in `only` or of all solvers that are not another one under a second name."""
    counts = np.unique(np.round(np.geomspace(2, MOST, points)).astype(int))
    found = {}
    for family, members in solver_table.FAMILIES.items():
        for name, make in members.items():
            if name in solver_table.SAME or (only and name not in only):
                continue
            solver, line = make(problem.schedule), {}
            for steps in counts:
                walk = problem.walk(solver, int(steps))
                if walk.evaluations > MOST:
                    break
                if walk.evaluations >= FEWEST:
                    line[walk.evaluations] = problem.error(solver, walk.x)
            found[name] = sorted(line), [line[evaluations] for evaluations in sorted(line)]
            print(f"{family}: {name}, {line[max(line)]:.1e} at {max(line)} evaluations", flush=True)
    return found


def guides(axes, start: float, orders) -> None:
    """Dashed lines of slope -order from the upper left corner, named beside the frame."""
    for order in orders:
        end = start * (MOST / FEWEST) ** -order
        axes.plot([FEWEST, MOST], [start, end], "--", color="0.65", linewidth=0.9, zorder=1)
        axes.annotate(f"slope {order}", (MOST, end), xytext=(12, 0), textcoords="offset points", color="0.4", fontsize=8,
                      va="center", annotation_clip=False)  # fmt: skip


def panel(axes, family: str, found: dict, level: float) -> None:
    """One family's curves; `level` is the error that no solver can go below."""
    stochastic = family == solver_table.STOCHASTIC
    axes.set(xscale="log", yscale="log", xlim=(FEWEST * 0.9, MOST * 1.1), ylim=(5e-3, 40) if stochastic else (5e-6, 4))
    guides(axes, HIGHEST, (1,) if stochastic else (1, 2, 3))
    names = [name for name in solver_table.FAMILIES[family] if name not in solver_table.SAME]
    if not stochastic and "ddim" not in names:
        axes.plot(*found["ddim"], color="0.1", linewidth=1.2, label="ddim")
    for place, name in enumerate(names):
        colour = "0.1" if name == "ddim" else COLOURS[place % len(COLOURS)]
        if min(found[name][1]) > HIGHEST:  # in the legend only
            axes.plot([], [], " ", label=f"{name}: above {HIGHEST:g}")
            continue
        axes.plot(*found[name], color=colour, marker=MARKERS[place % len(MARKERS)], linewidth=1.2, label=name, markersize=4,
                  markerfacecolor=colour if place < len(COLOURS) else "white", zorder=3)  # fmt: skip
    axes.axhline(level, color="0.4", linestyle=":", linewidth=1, zorder=1)
    text = "as many exact samples" if stochastic else "the step to t = 0 alone"
    axes.annotate(text, (FEWEST if stochastic else MOST, level), xytext=(0, -3), textcoords="offset points", color="0.4",
                  fontsize=7.5, va="top", ha="left" if stochastic else "right")  # fmt: skip
    axes.set(title=family, ylabel="sliced Wasserstein-2 distance to data" if stochastic else "RMS distance to the exact flow's end")
    axes.grid(True, color="0.92")
    axes.set_xticks([5, 10, 20, 50, 100, 200])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=7.5, loc="upper right" if stochastic else "lower left", ncols=2 if stochastic else 1, framealpha=1)
    axes.spines[["top", "right"]].set_visible(False)


def draw(found: dict, floor: float, last_step: float, out: pathlib.Path) -> None:
    figure, every = plt.subplots(2, 3, figsize=(16, 10))
    for axes, family in zip(every.flat, solver_table.FAMILIES, strict=True):
        panel(axes, family, found, floor if family == solver_table.STOCHASTIC else last_step)
    for axes in every[1]:
        axes.set_xlabel("network evaluations")
    figure.suptitle("Error of every solver against network evaluations\n2-D mixture of three Gaussians with its exact denoiser, "
                    f"VP linear schedule, log-SNR grid from t = 1 to {solver_table.END:g}, float64", fontsize=13)  # fmt: skip
    groups: dict = {}
    for name, other in solver_table.SAME.items():
        groups.setdefault(other, [other]).append(name)
    same = "; ".join(" = ".join(names) for names in groups.values())
    figure.text(0.5, 0.008, f"Drawn once, as they are the same step: {same}", ha="center", fontsize=8.5, color="0.3")
    figure.tight_layout(rect=(0, 0.025, 1, 1), w_pad=2)
    with aside(out) as part:
        figure.savefig(part, dpi=100, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=DOCS / "solver_errors.png")
    parser.add_argument("--points", type=int, default=16, help="numbers of steps from 2 to 200 (16)")
    flags = parser.parse_args()
    if flags.points < 3:  # of fewer some solvers have none within the frame
        parser.error(f"--points is at least 3, got {flags.points}")
    with jax.enable_x64(True):
        problem = solver_table.Problem(MOST)
        found = curves(problem, flags.points)
        draw(found, problem.floor(), problem.last_step(), flags.out)
    print(f"written to {flags.out}")


if __name__ == "__main__":
    main()

"""Inverse problems without training: every method and every measurement, against the exact posterior of Gaussian data.

  python experiments/benchmarks/inverse_problems.py

Writes results/inverse_problems_cpu.json and the tables of docs/inverse_problems.md (a few minutes on two cores). Float64, the VP
linear schedule, 100 levels even in log-SNR from t = 1 to t = 1e-4 and then the clean level; seed 0 for the data's mean, for what is
measured and for the starts of the walks, 1 for their noise. The data are rows of four pixels of three colours, N(m, C), so that the
denoiser and the posterior of every linear measurement are closed forms. A figure is of 4,096 samples.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

import harness
import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "inverse_problems.md"
sys.path.insert(0, str(ROOT))  # where the exact denoiser is

from diffux import Prediction, grids, guidance, keys, operators, schedules, solvers  # noqa: E402
from diffux.denoisers import chain  # noqa: E402
from diffux.files import aside  # noqa: E402
from diffux.processes import Gaussian  # noqa: E402
from tests.oracles import GaussianData  # noqa: E402

SHAPE, SCHEDULE = (4, 3), schedules.linear()
PROCESS, GRID = Gaussian(SCHEDULE), grids.log_snr(end=1e-4)
STDS = (0.0, 0.3)

# --- the data ---------------------------------------------------------------------------------------------------------

D = int(np.prod(SHAPE))
MEAN = np.random.default_rng(0).normal(0, 0.5, D)
_WIDE = np.tile([0.6, 1.0, 1.4], SHAPE[0])


def _alike(count: int, correlation: float) -> np.ndarray:
    """Correlations of a row in which neighbours have this one, those further apart a power of it."""
    return correlation ** np.abs(np.subtract.outer(np.arange(count), np.arange(count)))


COVARIANCE = _WIDE[:, None] * _WIDE * np.kron(_alike(SHAPE[0], 0.7), _alike(SHAPE[1], 0.8))
"""Correlations of 0.7 between neighbouring pixels and 0.8 between neighbouring colours, standard deviations of 0.6, 1 and 1.4
of the colours, so that grey tells something of them."""


def data(x, level, cond=None):
    return Prediction(GaussianData(MEAN, COVARIANCE)(x.reshape(-1, D), level).x0.reshape(x.shape))


# --- what is measured -------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """An operator, and, where it is some coordinates in an orthogonal basis, these: y = scale basis(x)[mask]."""

    operator: Callable
    mask: np.ndarray | None = None
    basis: Callable | None = None
    scale: float = 1.0


KNOWN = np.broadcast_to(np.array([True, False, False, True])[:, None], SHAPE)
_ONE = np.eye(D)
TWICE = np.stack([_ONE[0], _ONE[0], _ONE[4], _ONE[8], _ONE[4] + _ONE[8], np.zeros(D)])
"""An entry that is measured twice, two and their sum, and nothing."""

OPERATORS = {
    "inpainting": Measured(operators.mask(KNOWN), KNOWN),
    "super-resolution": Measured(operators.average_pool(2)),
    "blur, one frequency lost": Measured(operators.blur(np.array([0.25, 0.5, 0.25]))),
    "grey": Measured(operators.grey(3), np.broadcast_to(np.arange(3) == 0, SHAPE), operators.grey_basis(3), 3**-0.5),
    "twice or not at all": Measured(operators.matrix(TWICE, SHAPE)),
}


def matrix(operator) -> np.ndarray:
    """A (M, D)."""
    return np.asarray(operator(jnp.eye(D).reshape(D, *SHAPE)).reshape(D, -1)).T


class Problem(NamedTuple):
    measured: Measured
    y: np.ndarray
    std: float


def problems() -> dict[tuple[str, float], Problem]:
    """y of one draw of the data, the same for all operators."""
    rng = np.random.default_rng(0)
    truth = rng.multivariate_normal(MEAN, COVARIANCE).reshape(1, *SHAPE)
    made = {}
    for name, measured in OPERATORS.items():
        clean = np.asarray(measured.operator(jnp.asarray(truth)))
        made |= {(name, std): Problem(measured, clean + std * rng.standard_normal(clean.shape), std) for std in STDS}
    return made


def posterior(problem: Problem):
    """Mean and covariance of x_0 given y, by the pseudo-inverse where a measurement is repeated or empty."""
    a = matrix(problem.measured.operator)
    gain = COVARIANCE @ a.T @ np.linalg.pinv(a @ COVARIANCE @ a.T + problem.std**2 * np.eye(len(a)), rcond=1e-10)
    return MEAN + gain @ (problem.y.ravel() - a @ MEAN), COVARIANCE - gain @ a @ COVARIANCE


# --- methods ----------------------------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """A solver, a grid, and guidance of the estimate."""

    solver: solvers.Solver
    grid: Callable = GRID
    guidance: tuple = ()


def guided(rule: Callable) -> Callable[[Problem], Walk]:
    def make(problem):
        transform = guidance.posterior_sampling(problem.measured.operator, problem.y, problem.std, rule(problem))
        return Walk(solvers.ddim(), guidance=(transform,))

    return make


def proximal(zeta: float) -> Callable[[Problem], Walk]:
    def make(problem):
        transform = guidance.proximal(problem.measured.operator, problem.y, problem.std)
        return Walk(solvers.ddim(zeta=zeta), guidance=(transform,))

    return make


def known(make: Callable, grid: Callable = GRID) -> Callable[[Problem], Walk]:
    """A method that knows coordinates, exactly."""

    def made(problem):
        measured = problem.measured
        if measured.mask is None:
            raise ValueError("it sets entries of x, or of x in a basis such as grey's, and not all that is measured here are such")
        value = np.zeros(SHAPE)
        value[measured.mask] = problem.y.ravel() / measured.scale
        return Walk(make(value, measured.mask, measured.basis), grid)

    return made


def as_many(problem: Problem) -> int:
    """As many conjugate gradient steps as measurements, which solve their system."""
    return problem.y.size


METHODS: dict[str, Callable[[Problem], Walk]] = {
    "nothing measured": lambda problem: Walk(solvers.ddim()),
    "DPS, `dps()`": guided(lambda problem: guidance.dps()),
    "`dps(3)`": guided(lambda problem: guidance.dps(3.0)),
    "`dps(30)`": guided(lambda problem: guidance.dps(30.0)),
    "PiGDM, `isotropic()`": guided(lambda problem: guidance.isotropic(iterations=as_many(problem))),
    "`tweedie()`": guided(lambda problem: guidance.tweedie(as_many(problem))),
    "DiffPIR, zeta 0": proximal(0.0),
    "DiffPIR, zeta 0.1": proximal(0.1),
    "DiffPIR, zeta 1": proximal(1.0),
    "replacement": known(lambda *known: solvers.replace(solvers.ddim(), PROCESS, *known)),
    "replacement, 5 correctors": known(
        lambda *known: solvers.replace(solvers.compose(solvers.ddim(), solvers.langevin(0.1, 5)), PROCESS, *known)
    ),
    "RePaint, r = 1": known(lambda *known: solvers.repaint(solvers.ddim(1.0), PROCESS, *known), grids.resampled(GRID, 10, 1)),
    "RePaint, r = 10": known(lambda *known: solvers.repaint(solvers.ddim(1.0), PROCESS, *known), grids.resampled(GRID, 10, 10)),
}


def draw(walk: Walk, steps: int, n: int, denoise=data) -> np.ndarray:
    levels = walk.grid(SCHEDULE, steps)
    first = levels.sigma[0] * keys.noise(keys.sample_keys(0, 0, n), (n, *SHAPE))
    guided = chain(denoise, *walk.guidance)
    return np.asarray(solvers.sample(keys.sample_keys(1, 0, n), guided, walk.solver, levels, first).x).reshape(n, D)


def asked(walk: Walk, steps: int) -> tuple[int, int]:
    """How often one sample's walk evaluates the network, and its gradient."""
    counts = {"network": 0, "gradient": 0}

    def note(what):
        counts[what] += 1

    @jax.custom_vjp
    def network(x, level):
        jax.debug.callback(note, "network")
        return data(x, level).x0

    def forward(x, level):
        return network(x, level), (x, level)

    def backward(kept, cotangent):
        jax.debug.callback(note, "gradient")
        x, level = kept
        return jax.vjp(lambda x: data(x, level).x0, x)[1](cotangent)[0], jax.tree.map(jnp.zeros_like, level)

    network.defvjp(forward, backward)
    draw(walk, steps, 1, lambda x, level, cond: Prediction(network(x, level)))
    jax.effects_barrier()
    return counts["network"], counts["gradient"]


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(x: np.ndarray, problem: Problem) -> dict[str, float]:
    """On that axis of the posterior where they are largest, the error of the mean, in the posterior's standard deviations, and the
    standard deviation's share too much or too little; and the root mean square of y - A x."""
    mean, covariance = posterior(problem)
    values, axes = np.linalg.eigh(covariance)
    free = values > 1e-9  # what is known without noise has no law: the residual tells its error
    along = (x - mean) @ axes[:, free] / np.sqrt(values[free])
    wide, left = along.std(0) - 1, problem.y.ravel() - x @ matrix(problem.measured.operator).T
    return {"mean": float(np.abs(along.mean(0)).max()), "std": float(wide[np.abs(wide).argmax()]),
            "residual": float(np.sqrt(np.mean(left**2)))}  # fmt: skip


def measure(samples: int, steps: int) -> dict:
    rows: dict = {name: {} for name in [EXACT, *METHODS]}
    counts: dict = {name: {} for name in METHODS}
    made, rng = problems(), np.random.default_rng(1)
    for (operator, std), problem in track(made.items(), "problems"):
        exact = rng.multivariate_normal(*posterior(problem), samples, method="eigh")
        rows[EXACT].setdefault(str(std), {})[operator] = figures(exact, problem)
        for name, make in METHODS.items():
            row = rows[name].setdefault(str(std), {})
            try:
                walk = make(problem)
            except ValueError as error:
                row[operator] = str(error)
                continue
            row[operator] = figures(draw(walk, steps, samples), problem)
            if operator not in counts[name]:
                counts[name][operator] = asked(walk, steps)
    return {"rows": rows, "asked": counts, "samples": samples, "steps": steps}


EXACT = "the posterior itself"


def tables(results: dict) -> str:
    """A table for each noise of y, and what the numbers in brackets stand for."""
    notes: dict[str, int] = {}

    def cell(value):
        if isinstance(value, str):
            return f"[{notes.setdefault(value, len(notes) + 1)}]"
        residual = value["residual"]
        return f"{value['mean']:.2f} / {value['std']:+.2f} / " + (f"{residual:.2g}" if residual > 1e-5 else "0")

    def evaluations(name):
        pairs = results["asked"].get(name)
        if not pairs:
            return ""
        network, gradient = (sorted(set(column)) for column in zip(*pairs.values(), strict=True))
        shown = lambda counts: " to ".join(f"{count:,}" for count in sorted({counts[0], counts[-1]}))  # noqa: E731
        return shown(network) + (f" ({shown(gradient)})" if gradient[-1] else "")

    lines = []
    for std in STDS:
        lines += [f"y with noise of {std}:" if std else "y without noise:", "",
                  "| method | evaluations | " + " | ".join(OPERATORS) + " |", "|---" * (2 + len(OPERATORS)) + "|"]  # fmt: skip
        for name, row in results["rows"].items():
            cells = " | ".join(cell(row[str(std)][operator]) for operator in OPERATORS)
            lines.append(f"| {name} | {evaluations(name)} | {cells} |")
        lines.append("")
    return "\n".join([*lines, *(f"[{number}] {said}\n" for said, number in notes.items())])


BEGIN, END = "<!-- made by experiments/benchmarks/inverse_problems.py -->", "<!-- to here -->"


def write(results: dict) -> None:
    """The tables into the page, between its two marks."""
    page = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{tables(results)}\n{END}", PAGE.read_text(), flags=re.DOTALL)
    with aside(PAGE) as written:
        written.write_text(page)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file, by default in results/")
    options = parser.parse_args(arguments)
    with jax.enable_x64(True):
        results = harness.record("inverse_problems", {"table": lambda: measure(options.samples, options.steps)}, options.out)
    if options.out is None:
        write(results["table"])


if __name__ == "__main__":
    main()

"""Every solver with every guidance on a mixture of two classes, whose guided law has no closed form.

  python experiments/benchmarks/guidance_table.py

Writes results/guidance_table_cpu.json and docs/guidance_table.md (a quarter of an hour). Float64, the VP linear schedule, levels
even in log-SNR from t = 1 to t = 1e-4 and then the clean level; the guided estimates are written out in tests/guidance/beds.py.

Deterministic solvers: the largest distance of 32 walks of 80 steps, and of 160, from the end of the guided flow, integrated by
scipy in (x / alpha, sigma / alpha). Stochastic ones: the largest difference of the means and standard deviations of 4,096 walks of
400 steps from those of 1,000 steps of Euler-Maruyama, written in numpy, of the guided reverse SDE with the solver's share of noise.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import re
import sys
import zlib

import harness
import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track
from scipy.integrate import solve_ivp

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # where the beds and the list of solvers are

from diffux import grids, guidance, keys, schedules, solvers  # noqa: E402
from diffux.denoisers import chain  # noqa: E402
from diffux.types import part  # noqa: E402
from tests.guidance import beds  # noqa: E402
from tests.solvers import table  # noqa: E402

END, STEPS, MANY = 1e-4, (80, 160), 400
BED, SCHEDULE = beds.MIXTURE, schedules.linear()
DIMENSIONS, WALKS = BED.null[1].shape[1], 4096
NAMES = [name for name in beds.GUIDES if name != "none"]
SHARES = {"ddim(0.5)": 0.5, "sde_dpm_solver_pp_2m-heun": 0.5}  # of noise; 1 for the others
OWN = ("ddim(zeta=0.3)", "edm_heun", "annealed_langevin", "ddim + langevin", "predictor_corrector")
"""Stochastic solvers whose walk tends to no reverse SDE: correctors draw from the guided score at each level, which no density need
have, churn goes up by an amount of its own, and zeta draws the same share anew in a step of any length."""


def ratios():
    first, last = SCHEDULE(jnp.asarray(1.0)), SCHEDULE(jnp.asarray(END))
    return float(first.sigma / first.alpha), float(last.sigma / last.alpha)


def field(name):
    """(x / alpha, sigma / alpha) -> the guided x0, by numpy alone."""

    def of(y, rho):
        alpha = 1 / np.sqrt(1 + rho**2)
        return beds.GUIDES[name].formula(BED, alpha * y, alpha, rho * alpha, np)

    return of


def flow(name, start):
    """Where the guided flow ends, to nine digits; x0 of the last level."""
    top, last = ratios()
    guided = field(name)

    def slope(log_rho, y):
        y = y.reshape(-1, DIMENSIONS)
        return (y - guided(y, np.exp(log_rho))).ravel()

    found = solve_ivp(slope, (np.log(top), np.log(last)), start.ravel(), "DOP853", rtol=1e-9, atol=1e-9)
    return guided(found.y[:, -1].reshape(start.shape), last)


def diffusion(name, share, n, seed=0):
    """(mean, standard deviation) at the end of the guided reverse SDE with this share of noise, by Euler-Maruyama."""
    top, last = ratios()
    guided, rng = field(name), np.random.default_rng(seed)
    rho = np.geomspace(top, last, 1001)
    y = top * rng.standard_normal((n, DIMENSIONS))
    for t, s in itertools.pairwise(rho):
        noise = share * np.sqrt(2 * t * (t - s)) * rng.standard_normal(y.shape)
        y = y + (1 + share**2) * (y - guided(y, t)) / t * (s - t) + noise
    y = guided(y, last)
    return np.concatenate([y.mean(0), y.std(0)])


def programs():
    branches = [beds.guided(name, BED) for name in NAMES]

    @part
    def chosen(x, level, cond):
        return jax.lax.switch(cond["which"], [lambda x, level, of=of: of(x, level, {}) for of in branches], x, level)

    return chosen


def levels(steps):
    return grids.log_snr(end=END)(SCHEDULE, steps)


def key(text):
    return zlib.crc32(text.encode())


def measure() -> dict:
    chosen, rng = programs(), np.random.default_rng(0)
    first = SCHEDULE(jnp.asarray(1.0))
    start = float(first.sigma) * rng.standard_normal((32, DIMENSIONS))
    cloud = float(first.sigma) * rng.standard_normal((WALKS, DIMENSIONS))
    ends = {name: flow(name, start / float(first.alpha)) for name in track(NAMES, "flows")}
    shares = {1.0, *SHARES.values()}
    clouds = {(name, share): diffusion(name, share, WALKS) for name in track(NAMES, "diffusions") for share in shares}
    rows = {}
    for solver, make in track(table.ALL.items(), "solvers"):
        made, row = make(SCHEDULE), {}

        def walk(x, steps, which, made=made, solver=solver):
            own = keys.sample_keys(key(solver), 0, len(x))
            cond = {"which": jnp.asarray(which)}
            return np.asarray(solvers.sample(own, chosen, made, levels(steps), jnp.asarray(x), cond).x)

        moments = lambda x: np.concatenate([x.mean(0), x.std(0)])  # noqa: E731
        for which, name in enumerate(NAMES):
            if solver in table.STOCHASTIC:
                found = moments(walk(cloud, MANY, which))
                against = moments(walk(cloud, 2 * MANY, which)) if solver in OWN else clouds[name, SHARES.get(solver, 1.0)]
                row[name] = [float(np.abs(found - against).max())]
            else:
                row[name] = [float(np.linalg.norm(walk(start, steps, which) - ends[name], axis=1).max()) for steps in STEPS]
        row |= carried(made, start)
        rows[solver] = row
    return {"rows": rows, "steps": STEPS, "many": MANY}


CARRIED = {
    "classifier_free_pp": guidance.classifier_free_pp(0.6),
    "classifier, moves='mean'": guidance.classifier(beds.log_ratio(BED), 1.5, moves="mean"),
    "adaptive_projected, momentum": guidance.adaptive_projected(3.0, momentum=-0.5),
}


def carried(made, start) -> dict:
    """Of guidance by more than an estimate, which no flow has for a limit: whether the solver takes it, and else what it says."""
    row = {}
    for name, transform in CARRIED.items():
        denoise = chain(beds.denoiser(beds.Bed(BED.null, BED.null) if name.startswith("classifier,") else BED), transform)
        try:
            x = solvers.sample(keys.sample_keys(0, 0, len(start)), denoise, made, levels(20), jnp.asarray(start)).x
            row[name] = "finite" if np.isfinite(x).all() else "not finite"
        except ValueError as error:
            row[name] = str(error).partition("\n")[0]
    return row


ABOUT = f"""
`experiments/benchmarks/guidance_table.py` makes this page. Two labelled mixtures in three dimensions, float64, the VP linear schedule,
levels even in log-SNR. A deterministic solver has the largest distance of 32 walks of {STEPS[0]} / {STEPS[1]} steps from the end of the
guided flow, which scipy integrates; a stochastic one the largest difference of means and standard deviations of {WALKS:,} walks of
{MANY} steps from an independent integration of the guided reverse SDE, of which 0.03 is chance. Those marked * tend to no reverse SDE
(a corrector draws from the guided score of each level, which no density need have; churn goes up by an amount of its own; zeta
draws the same share anew in a step of any length): their figure is the difference from their own walk of {2 * MANY} steps.

What guides by more than an estimate has no limit for many steps, and a solver takes it or not: "yes" is a walk of 20 steps that is
finite; tests/guidance/test_projected.py compares such walks with the papers' loops.
"""  # noqa: E501 - shorter when filled in


def page(rows: dict) -> str:
    """The table as a page of the docs."""
    notes: dict[str, int] = {}

    def cell(value):
        if isinstance(value, list):
            return " / ".join(f"{one:.1e}" for one in value)
        if value == "finite":
            return "yes"
        said = re.sub(r"^\w+ does not", "it does not", re.sub(r"and \w+ evaluates", "and this one evaluates", value))
        return f"no [{notes.setdefault(said, len(notes) + 1)}]"

    columns = [*NAMES, *CARRIED]
    heading = ["| solver | " + " | ".join(columns) + " |", "|" + "---|" * (1 + len(columns))]
    lines = ["# Every solver with every guidance", ABOUT, *heading]
    for solver, row in rows.items():
        lines.append(f"| {solver}{'*' if solver in OWN else ''} | " + " | ".join(cell(row[name]) for name in columns) + " |")
    return "\n".join([*lines, "", *(f"[{number}] {said}\n" for said, number in notes.items())])


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file, by default in results/")
    options = parser.parse_args(arguments)
    with jax.enable_x64(True):
        results = harness.record("guidance_table", {"table": measure}, options.out)
    if options.out is None:
        (ROOT / "docs" / "guidance_table.md").write_text(page(results["table"]["rows"]))


if __name__ == "__main__":
    main()

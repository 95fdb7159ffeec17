"""The variational bound of `iddpm_digits` with its learned variance and, of the same estimates, with either fixed one.

  python experiments/benchmarks/variances.py --runs runs/iddpm

Trains what is missing in the folder by seeds 0, 1 and 2 (two and a half minutes each on two cores), and takes the bound of the 360
held-out digits in all 1000 steps by the same draws: bits a dimension given the label, with the standard error over digits. Writes
results/variances_cpu.json. The fixed variances are those between which the learned one lies, beta_t and the posterior's.
"""

from __future__ import annotations

import dataclasses
import pathlib

import harness

from diffux import processes
from diffux.evaluation import bound

SEEDS, N, DRAWS = (0, 1, 2), 360, 2
FIXED = {"learned": None, "posterior": processes.posterior(), "upper": processes.upper()}


def measure(folder: pathlib.Path) -> dict:
    rows: dict = {name: [] for name in FIXED}
    for seed in SEEDS:
        run = harness.run(folder, f"iddpm_{seed}", "iddpm_digits", f"--config.seed={seed}")
        for name, variance in FIXED.items():
            process = run.system.process if variance is None else run.system.process.replace(variance=variance)
            with_it = dataclasses.replace(run, system=run.system.replace(process=process))
            found = bound.held_out(with_it, n=N, draws=DRAWS)
            rows[name].append({"bits": found["model"]["bits"], "error": found["model"]["standard_error"], "terms": found["terms"]})
            print(seed, name, rows[name][-1], flush=True)
    return {"rows": rows, "n": N, "draws": DRAWS}


def main(arguments=None) -> None:
    options = harness.parser(__doc__).parse_args(arguments)
    results = harness.record("variances", {"bounds": lambda: measure(options.runs)}, options.out)
    rows = harness.table("Bits a dimension by the bound", *(f"seed {seed}" for seed in SEEDS))
    for name, found in results["bounds"]["rows"].items():
        rows.add_row(name, *(f"{one['bits']:.3f}" for one in found))
    harness.CONSOLE.print(rows)


if __name__ == "__main__":
    main()

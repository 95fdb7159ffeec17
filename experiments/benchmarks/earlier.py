"""This checkout beside an earlier one: equal weights, losses and samples; old runs and exports; figures, speed and memory.

  git worktree add ../earlier 9679d90
  python experiments/benchmarks/earlier.py --earlier ../earlier
  python experiments/benchmarks/earlier.py --earlier ../earlier --equal
  python experiments/benchmarks/earlier.py --earlier ../earlier --figures
  python experiments/benchmarks/earlier.py --earlier ../earlier --speed --rounds 9
  python experiments/benchmarks/earlier.py --earlier ../earlier --speed images --rounds 9
  python experiments/benchmarks/earlier.py --earlier ../earlier --memory

Both are driven by their commands, each in processes of its own. --equal: ddpm_digits from the same seed, its initial weights, first
ten losses and held-out loss; then samples of the earlier run by both, by its own solver, by DDIM and with guidance, the run
continued by both, and its export sampled by both. --figures: ddpm_digits trained by both with three seeds, its last held-out loss
and the figures of 512 samples by DDIM. --speed: seconds from the start of a process to the first step, with an
empty compilation cache and with the one that this left; images a second of ddpm_digits and of the step of ddpm_cifar10; the
overhead of the sampler, or those of them whose name has a word; the two checkouts take turns, and each figure is the ratio within
a round. --memory: what the
compiler for TPU v5e says of ddpm_cifar10 sharded over eight (pip install libtpu). Exit status 1 where something is not equal.
The figures are also written to a JSON file, in which parts that did not run this time stay as they are.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from harness import CONSOLE, EXPERIMENTS, record, shown, spread, table
from rich.progress import track
from safetensors.numpy import load_file

HERE = EXPERIMENTS.parent
TOLERANCE = 1e-5
QUIET = ("--config.training.sample_every=0", "--config.training.eval_every=0", "--config.sample.n=1", "--config.sample.steps=1")
FEW = ("--config.training.log_every=1", *QUIET)
WALKS = {
    "samples, its own solver": ("--steps", "50"),
    "samples, DDIM": ("--solver", "ddim", "--steps", "20"),
    "samples, DDIM, guidance 3": ("--solver", "ddim", "--steps", "20", "--guidance", "3", "--label", "3,8"),
    "samples, UniPC": ("--solver", "unipc", "--steps", "10"),
}


class Checkout:
    """One of the two, driven by its commands."""

    def __init__(self, name: str, root: pathlib.Path, scratch: pathlib.Path):
        self.name, self.root, self.scratch = name, root.resolve(), scratch / name
        self.scratch.mkdir()
        if not (self.root / "diffux").is_dir():
            raise SystemExit(f"{root} is no checkout of diffux")

    def run(self, *words, cache: pathlib.Path | None = None) -> None:
        """Run Python with these words in a process of its own; ends with the end of what it says where it fails."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "DIFFUX_CACHE": str(cache or self.scratch / "cache")}
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=self.scratch, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command[1:])} ended with {done.returncode}\n{done.stderr[-2000:]}")

    def script(self, name: str) -> pathlib.Path:
        """A script of experiments/."""
        return self.root / "experiments" / name

    def train(self, config: str, workdir: pathlib.Path, *flags: str, cache: pathlib.Path | None = None) -> list[dict]:
        """Train, or continue; the lines of the run's metrics."""
        path = self.script(f"configs/{config}.py")
        self.run(self.script("train.py"), "--config", path, "--workdir", workdir, *flags, cache=cache)
        return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]

    def weights(self, workdir: pathlib.Path, *flags: str) -> dict[str, np.ndarray]:
        """The weights of a run by their names."""
        file = self.scratch / "weights.safetensors"
        self.run(self.script("export.py"), "--workdir", workdir, "--out", file, *flags)
        return load_file(file)

    def samples(self, *flags) -> np.ndarray:
        """Sixteen samples of a run or of an export."""
        file = self.scratch / "samples.npz"
        self.run(self.script("sample.py"), *flags, "--n", 16, "--seed", 0, "--out", file)
        with np.load(file) as held:
            return held["images"]


def _losses(rows: list[dict], key: str = "loss") -> np.ndarray:
    return np.array([row[key] for row in rows if key in row])


# --- equal -----------------------------------------------------------------------------------------------------------


def equal(both: list[Checkout]) -> dict:
    """The largest differences of the two, by what was compared."""
    differences: dict[str, float] = {}

    def compare(name: str, first, second) -> None:
        fits = np.shape(first) == np.shape(second)
        differences[name] = float(np.abs(np.asarray(first) - np.asarray(second)).max()) if fits else float("inf")
        CONSOLE.print(f"{name}: {differences[name]:.2g}")

    runs = {side.name: side.scratch / "run" for side in both}
    still = [side.scratch / "still" for side in both]
    for side, workdir in zip(both, still, strict=True):
        side.train("ddpm_digits", workdir, *FEW, "--config.steps=1", "--config.optimizer.learning_rate=0.0")
    first, second = (side.weights(workdir, "--raw") for side, workdir in zip(both, still, strict=True))
    if first.keys() != second.keys():
        raise SystemExit(f"the weights have other names: {sorted(first.keys() ^ second.keys())}")
    compare("initial weights", *(np.concatenate([held[name].ravel() for name in sorted(first)]) for held in (first, second)))

    rows = [side.train("ddpm_digits", runs[side.name], *FEW, "--config.steps=10") for side in both]
    compare("the first ten losses", *map(_losses, rows))
    compare("held-out loss", *(_losses(of, "held_out_loss") for of in rows))

    earlier = runs[both[0].name]
    for name, walk in WALKS.items():
        compare(f"{name}, of the earlier run", *(side.samples("--workdir", earlier, *walk) for side in both))
    exported = both[0].scratch / "exported.safetensors"
    both[0].run(both[0].script("export.py"), "--workdir", earlier, "--out", exported)
    compare("samples of the earlier export", *(side.samples("--weights", exported, "--steps", "20") for side in both))

    continued = []
    for side in both:
        workdir = side.scratch / "continued"
        shutil.copytree(earlier, workdir)
        continued.append(side.train("ddpm_digits", workdir, *FEW, "--config.steps=20"))
    compare("losses 11 to 20 of the earlier run, continued", *(_losses(of)[10:] for of in continued))
    return {"largest_differences": differences, "tolerance": TOLERANCE, "equal": max(differences.values()) <= TOLERANCE}


# --- figures ---------------------------------------------------------------------------------------------------------

SEEDS = 3


def figures(both: list[Checkout]) -> dict:
    """What the whole run of each seed comes to, by checkout, in the order of the seeds."""
    found: dict[str, dict[str, list[float]]] = {side.name: {} for side in both}
    for seed, side in track([(seed, side) for seed in range(SEEDS) for side in both], "figures", console=CONSOLE):
        workdir = side.scratch / f"seed{seed}"
        rows = side.train("ddpm_digits", workdir, f"--config.seed={seed}")
        side.run(side.script("evaluate.py"), "--workdir", workdir, "--solver", "ddim", "--steps", 50)
        judged = json.loads((workdir / "evaluation.json").read_text())["rows"]["generated"]
        held_out = _losses(rows, "held_out_loss")[-1]
        for name, value in {"held-out loss": held_out, **{key: judged[key] for key in ("recognisable", "frechet")}}.items():
            found[side.name].setdefault(name, []).append(float(value))
    view = table(f"ddpm_digits, {SEEDS} seeds: smallest, middle, largest", *found)
    for name in found[both[0].name]:
        view.add_row(name, *(", ".join(f"{value:.4g}" for value in sorted(of[name])) for of in found.values()))
    CONSOLE.print(view)
    return found


# --- speed -----------------------------------------------------------------------------------------------------------


def _first_step(side: Checkout, cold: bool) -> float:
    cache, workdir = side.scratch / "first", side.scratch / "first_step"
    for folder in (workdir, *([cache] if cold else [])):
        shutil.rmtree(folder, ignore_errors=True)
    return _losses(side.train("ddpm_digits", workdir, *FEW, "--config.steps=1", cache=cache), "seconds_to_first_step")[0]


def _rate(side: Checkout, config: str, *flags: str) -> float:
    """Images a second, the median of a run's lines but the first."""
    workdir = side.scratch / "rate"
    shutil.rmtree(workdir, ignore_errors=True)
    rows = side.train(config, workdir, *QUIET, *flags)
    return float(np.median(_losses(rows, "images_per_second")[1:]))


def _overhead(side: Checkout) -> float:
    """Microseconds a step of DDIM beyond bare evaluations."""
    file = side.scratch / "overhead.json"
    side.run(side.script("benchmarks/sampling.py"), "--overhead", "--out", file)
    return json.loads(file.read_text())["overhead"]["overhead_us"]["ddim, one scan"]["median"]


CIFAR = ("--config.data.name=patches/32", "--config.data.batch_size=2", "--config.steps=6", "--config.training.log_every=1",
         "--config.training.checkpoint_every=1000", "--config.training.eval_examples=2")  # fmt: skip
MEASURES = {
    "seconds to the first step, cold": lambda side: _first_step(side, cold=True),
    "seconds to the first step, warm": lambda side: _first_step(side, cold=False),
    "images/s, ddpm_digits": lambda side: _rate(side, "ddpm_digits", "--config.steps=300", "--config.training.log_every=50"),
    "images/s, ddpm_cifar10's step, batch 2": lambda side: _rate(side, "ddpm_cifar10", *CIFAR),
    "sampler's overhead, us a step": _overhead,
}


def speed(both: list[Checkout], name: str, rounds: int) -> dict:
    """One of the measures: each checkout's values, and the ratios within a round."""
    values: dict[str, list[float]] = {side.name: [] for side in both}
    for turn in track(range(rounds), name, console=CONSOLE):
        for side in both if turn % 2 else reversed(both):
            values[side.name].append(MEASURES[name](side))
    first, second = values.values()
    found = {key: spread(of) for key, of in values.items()} | {"ratio": spread(np.divide(second, first))}
    view = table(f"{rounds} rounds in turn, median (quartiles)", *values, "now / earlier")
    view.add_row(name, *(shown(figures, 2) for figures in found.values()))
    CONSOLE.print(view)
    return found


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(both: list[Checkout]) -> dict:
    found: dict = {}
    flags = ["--topology", "v5e:2x4", "--config.sharding.fsdp=8", "--config.data.batch_size=128", "--json"]
    for side in both:
        file, config = side.scratch / "report.json", side.script("configs/ddpm_cifar10.py")
        as_command = (side.root / "diffux/cli/compile.py").exists()
        command = ("-m", "diffux", "compile") if as_command else (side.script("train.py"), "--compile_only")
        side.run(*command, "--config", config, *flags, file)
        found[side.name] = dict(_numbers(json.loads(file.read_text())))
    view = table("ddpm_cifar10 on TPU v5e, 2x4, fsdp 8", *found)
    for key in next(iter(found.values())):
        view.add_row(key, *(f"{of.get(key, float('nan')):,.6g}" for of in found.values()))
    CONSOLE.print(view)
    return found


def _numbers(report, path: str = ""):
    """(path, number) of everything in a report but what depends on the clock."""
    for key, value in report.items() if isinstance(report, dict) else ():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and "seconds" not in key:
            yield path + key, value


# --- the run ---------------------------------------------------------------------------------------------------------

PARTS = {"equal": equal, "figures": figures, "memory": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=pathlib.Path, required=True, metavar="DIR", help="a checkout of an earlier commit")
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--speed", nargs="?", const="", metavar="WORD", help="all of it, or the measures whose name has a word")
    parser.add_argument("--rounds", type=int, default=5, help="of --speed (5)")
    parser.add_argument("--out", type=pathlib.Path, help="where the figures go; results/earlier_<device>.json beside this file")
    flags = parser.parse_args()
    every = flags.speed is None and not any(getattr(flags, part) for part in PARTS)
    with tempfile.TemporaryDirectory() as scratch:
        both = [Checkout(name, root, pathlib.Path(scratch)) for name, root in (("earlier", flags.earlier), ("now", HERE))]
        parts = {name: {name: functools.partial(part, both)} for name, part in PARTS.items()}
        measures = [name for name in MEASURES if (flags.speed or "") in name]
        parts["speed"] = {name: functools.partial(speed, both, name, flags.rounds) for name in measures}
        chosen = [name for name in parts if every or getattr(flags, name) not in (None, False)]
        wanted = {key: run for name in chosen for key, run in parts[name].items()}
        results = record("earlier", wanted, flags.out)
    return 0 if results.get("equal", {"equal": True})["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())

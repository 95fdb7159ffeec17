"""How long a newcomer waits: seconds from the start of the process to the first training step, and the speed after it.

  python experiments/benchmarks/first_step.py
  python experiments/benchmarks/first_step.py --config experiments/configs/ddpm_patches.py --steps 100

Runs the config twice in processes of their own: with an empty compilation cache ("cold", the data set is prepared
already), then with the one the first run left ("warm"). Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent
_LAUNCH = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def measure(config: str, steps: int, compilation_cache: pathlib.Path, workdir: pathlib.Path) -> dict[str, float]:
    """Seconds to the first step, images a second (the median of the stretches), and peak memory in MiB of one run."""
    every = max(1, steps // 5)
    command = [
        sys.executable,
        str(EXPERIMENTS / "train.py"),
        *("--config", config, "--workdir", str(workdir), f"--config.steps={steps}"),
        *(f"--config.training.log_every={every}", f"--config.training.checkpoint_every={steps}"),
        *("--config.training.sample_every=0", "--config.sample.n=1", "--config.sample.steps=1"),
    ]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compilation_cache)} | {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", _LAUNCH, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    first = next(row["seconds_to_first_step"] for row in rows if "seconds_to_first_step" in row)
    # Linux counts the resident set in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"first step, s": first, "images/s": statistics.median(speeds), "peak memory, MiB": int(done.stdout) / unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(EXPERIMENTS / "configs" / "ddpm_digits.py"))
    parser.add_argument("--steps", type=int, default=50)
    flags = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prepare = f"import sys; sys.path.insert(0, {str(EXPERIMENTS)!r}); import command_line\n"
        prepare += f"config = command_line.read_config({flags.config!r}, [])\nfrom diffux import data\n"
        prepare += "data.load(config['data']['name'], split=config['data']['split'])"
        subprocess.run([sys.executable, "-c", prepare], check=True)
        results = {name: measure(flags.config, flags.steps, folder / "cache", folder / name) for name in ("cold", "warm")}
    names = list(results["cold"])
    print(f"{pathlib.Path(flags.config).stem}, {flags.steps} steps, {os.cpu_count()} CPUs")
    print(f"{'cache':8}" + "".join(f"{name:>20}" for name in names))
    for cache, values in results.items():
        print(f"{cache:8}" + "".join(f"{values[name]:20.1f}" for name in names))


if __name__ == "__main__":
    main()

"""Full and read-only disks: each ends a run in one sentence, and with room it goes on.

Not a script: `run.py --disks N`.
"""

from __future__ import annotations

import collections
import os
import pathlib
import random
import re
import subprocess
import sys

from stress.harness import EXPERIMENTS, POINTS, Failed, call, one_sentence, weights

# In a mount namespace of its own: a small file system that fills up, then the same one with room; or one that is read only.
_FULL = """
set -u; folder=$1; size=$2; shift 2
mount -t tmpfs -o size=$size none "$folder"
"$@"; echo "status $?" >&2
mount -o remount,size=64m "$folder"
"$@"; echo "status $?" >&2
cp -a "$folder/." "$folder.left"
"""


_READ_ONLY = """
set -u; folder=$1; shift 1
mount -t tmpfs -o size=8m none "$folder"
mount -o remount,ro "$folder"
"$@"; echo "status $?" >&2
"""


def disks(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Train on `count` file systems that fill up at another point each, and on one that cannot be written; then make room."""
    environment = os.environ | {"DIFFUX_CACHE": os.environ.get("DIFFUX_CACHE", str(folder / "cache"))}
    counts, draw = collections.Counter(), random.Random(seed)
    longer = ("--config.steps=20", "--config.training.keep=99")

    def train(mounted: str, name: str, *arguments: str) -> list[tuple[int, str]]:
        (folder / name).mkdir(parents=True)
        command = [sys.executable, str(EXPERIMENTS / "train.py"), *POINTS, *longer]
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", mounted, "sh", str(folder / name), *arguments, *command, "--workdir",
             str(folder / name / "run")], env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            raise Failed(f"file systems cannot be mounted here: {done.stderr[:200]}")
        *parts, rest = re.split(r"status (\d+)\n", done.stderr)
        if rest:
            raise Failed(f"{name}: {rest[-300:]}")
        return [(int(status), err) for err, status in zip(parts[::2], parts[1::2], strict=True)]

    straight = folder / "straight"
    status, _, err = call("train", *POINTS, *longer, "--workdir", str(straight))
    if status:
        raise Failed(err)
    wanted, size = weights(straight), sum(path.stat().st_size for path in straight.rglob("*") if path.is_file())
    for number in range(count):
        # From too small for the first files to nearly enough.
        kib = int(size / 1024 * draw.uniform(number, number + 1) / count) + 4
        full, continued = train(_FULL, f"disk{number}", f"{kib}k")
        outcome = "one sentence, and continued with room" if full[0] else "it fitted"
        if full[0] and not one_sentence(*full):
            outcome = f"FAILED: status {full[0]}: {full[1][-1500:]}"
        elif continued[0] or weights(folder / f"disk{number}.left" / "run") != wanted:
            outcome = f"FAILED: with room, status {continued[0]}: {continued[1][-500:]}"
        counts[outcome.partition(":")[0]] += 1
        print(f"{number:4} {kib} KiB: status {full[0]}, {outcome}: {full[1].strip()[:300]}", flush=True)
    ((status, err),) = train(_READ_ONLY, "read_only")
    outcome = "read only: one sentence" if one_sentence(status, err) else f"FAILED: read only, status {status}: {err}"
    counts[outcome] += 1
    print(outcome, err.strip(), flush=True)
    return counts

"""What a run survives: kill -9 and signals at random moments, damaged folders, full disks, and configs and flags that make no
sense.

  python experiments/stress/run.py --kills 25
  python experiments/stress/run.py --signals 40
  python experiments/stress/run.py --damage 100
  python experiments/stress/run.py --mutations 300
  python experiments/stress/run.py --disks 8

Each part prints its counts and exits with 1 where something was not as docs/faults.md promises; --seed draws other cases. Mutations
that were counted in a folder of --keep are not started again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import door  # noqa: F401 - finds the library of a clone that is not installed

from stress.damage import damages
from stress.disks import disks
from stress.harness import Failed
from stress.kills import kills
from stress.mutations import mutations
from stress.signals import signals


def report(title: str, counts: collections.Counter) -> None:
    print(f"\n{title}: {sum(counts.values())}")
    for name, number in sorted(counts.items()):
        print(f"  {number:4}  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill a training N times")
    parser.add_argument("--signals", type=int, default=0, metavar="N", help="send Ctrl-C and others N times")
    parser.add_argument("--damage", type=int, default=0, metavar="N", help="continue a run N times whose folder was damaged")
    parser.add_argument("--mutations", type=int, default=0, metavar="N", help="give N times a key or flag another value")
    parser.add_argument("--disks", type=int, default=0, metavar="N", help="train on N disks that fill up (Linux, needs mount)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="leave the runs and their output in a folder")
    flags = parser.parse_args()
    parts = {"damage": damages, "mutations": mutations, "disks": disks, "kills": kills, "signals": signals}
    if not any(getattr(flags, name) for name in parts):
        parser.error("nothing to do: --kills, --signals, --damage, --mutations and --disks say what, and how often")

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(flags.keep or stack.enter_context(tempfile.TemporaryDirectory())).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        failed = False
        for name, part in parts.items():
            count = getattr(flags, name)
            if not count:
                continue
            (folder / name).mkdir(exist_ok=True)
            try:
                counts = part(count, flags.seed, folder / name)
            except Failed as error:
                print(f"FAILED: {error}", file=sys.stderr)
                failed = True
            else:
                report(name, counts)
                failed = failed or any(outcome.startswith("FAILED") for outcome in counts)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

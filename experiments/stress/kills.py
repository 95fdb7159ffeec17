"""kill -9 at random moments: every run that was killed ends as the undisturbed one.

Not a script: `run.py --kills N`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from stress.harness import EXPERIMENTS, TRAINING, Failed, readable, remove, weights

AIMS = ("anywhere", "a start", "a checkpoint", "its last files", "the compilation cache")


class Process:
    """A training in a process group of its own, whose output goes to a file."""

    def __init__(self, arguments: list[str], log: pathlib.Path, environment: dict[str, str]):
        self.log, self._file, self.began = log, open(log, "w"), time.time()
        command = [sys.executable, str(EXPERIMENTS / "train.py"), *arguments]
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )

    def status(self) -> int | None:
        return self._process.poll()

    def kill(self) -> bool:
        """Kill the whole group; false where the process had ended before."""
        if self.status() is not None:
            return False
        os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait() == -signal.SIGKILL

    def wait(self, until, seconds: float = 300) -> bool:
        """Wait until `until()` is true; false where the process ended first. Raises Failed after `seconds`."""
        end = time.monotonic() + seconds
        while not until():
            if self.status() is not None:
                return False
            if time.monotonic() > end:
                self.kill()
                raise Failed(f"a hang: nothing came for {seconds} s, see {self.log}")
            time.sleep(0.001)
        return True

    def said(self, words: str) -> bool:
        return words in self.log.read_text()


def unfinished(workdir: pathlib.Path, since: float = 0.0) -> list[pathlib.Path]:
    """The folders of checkpoints that are being written, or were when a process was killed, touched after `since`."""
    found = []
    for path in workdir.glob("checkpoints/*.orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):  # it just got its final name
            found += [path] if path.stat().st_ctime > since else []
    return found


def kill_at(process: Process, aim: str, draw: random.Random, workdir: pathlib.Path, cache: pathlib.Path, start: float) -> bool:
    """Kill a process at the moment that `aim` names; false where it came to its end before."""
    if aim == "a start":
        end = time.monotonic() + draw.uniform(0, start)
        process.wait(lambda: time.monotonic() > end)
    elif aim == "the compilation cache":
        # Entries are written one after the other: stop at some of them while the youngest is still growing.
        number = draw.randint(1, 12)
        process.wait(lambda: len(list(cache.glob("compilation/*-cache"))) >= number)
    else:
        process.wait(lambda: process.said("first step after"))
        saves, seen = draw.randint(1, 6), set()

        def begun(name: str = ""):
            folders = {path.name for path in unfinished(workdir, process.began) if not name or (path / name).exists()}
            new = folders - seen
            seen.update(new)
            return bool(new) and len(seen) >= saves

        if aim == "anywhere":
            end = time.monotonic() + draw.uniform(0, 1.5)
            process.wait(lambda: time.monotonic() > end)
        else:
            process.wait(begun if aim == "a checkpoint" else lambda: begun("checksums.json"))
            time.sleep(draw.uniform(0, 0.03) if aim == "a checkpoint" else draw.uniform(0, 0.002))
    return process.kill()


def kills(count: int, seed: int, folder: pathlib.Path, steps: int = 40) -> collections.Counter:
    """Kill trainings `count` times and count the moments; every run that was killed ends as the undisturbed one."""
    draw, counts = random.Random(seed), collections.Counter()
    environment = os.environ | {"DIFFUX_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    os.environ["DIFFUX_CACHE"] = environment["DIFFUX_CACHE"]

    def begin(workdir, name, cache=None):
        arguments = [*TRAINING, "--workdir", str(workdir), f"--config.steps={steps}"]
        return Process(arguments, folder / f"{name}.log", environment | ({"DIFFUX_CACHE": str(cache)} if cache else {}))

    for name in ("cold", "undisturbed"):  # the first fills the cache, and the second says how long a start takes
        since, process, start = time.monotonic(), begin(folder / name, name), None
        while process.status() is None:
            if start is None and process.said("first step after"):
                start = time.monotonic() - since
            time.sleep(0.01)
        if process.status():
            raise Failed(f"the undisturbed run failed: {process.log.read_text()[-1000:]}")
    wanted = weights(folder / "undisturbed")
    print(f"undisturbed: {steps} steps, {start:.1f} s to the first of them", flush=True)

    aims = [AIMS[i % len(AIMS)] for i in range(count)]
    draw.shuffle(aims)
    run, number = 0, 0
    while aims:
        workdir, run, ended = folder / f"run{run}", run + 1, False
        while aims and not ended:
            aim, number = aims[-1], number + 1
            # A cache of its own is empty at the first start, and half-written at the next.
            cache = folder / "small" if aim == "the compilation cache" else None
            if cache is not None and draw.random() < 0.5:
                remove(cache / "compilation")
            process = begin(workdir, f"{workdir.name}-{number}", cache)
            ended = not kill_at(process, aim, draw, workdir, cache or folder / "cache", start)
            if ended and process.status():
                raise Failed(f"a restart failed: {process.log.read_text()[-1000:]}")
            step = readable(workdir)
            if ended:
                continue
            aims.pop()
            writing = unfinished(workdir, process.began)
            phase = "training" if process.said("first step after") else "starting"
            if writing:
                sealed = any((path / "checksums.json").exists() for path in writing)
                phase = "writing a checkpoint" + ", its last files" * sealed
            elif phase == "starting" and aim == "the compilation cache":
                phase = "filling the compilation cache"
            counts[phase] += 1
            print(f"kill {sum(counts.values()):3}: while {phase}; readable at step {step}", flush=True)
        while not ended:  # left alone, the run comes to its end
            process = begin(workdir, f"{workdir.name}-last")
            process.wait(lambda: False)
            ended = True
            if process.status():
                raise Failed(f"the last restart failed: {process.log.read_text()[-1000:]}")
        if weights(workdir) != wanted:
            raise Failed(f"{workdir} ended with other parameters than the undisturbed run")
        if unfinished(workdir):
            raise Failed(f"{workdir} still holds {unfinished(workdir)}")
        print(f"{workdir.name} ended as the undisturbed run did, bit for bit", flush=True)
    return counts

"""Ctrl-C and SIGTERM at random moments: before the first step the command ends with one line; after it, saved, whatever else comes.

Not a script: `run.py --signals N`.
"""

from __future__ import annotations

import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from stress.harness import EXPERIMENTS, TRAINING, Failed, readable

PROMPT = 5.0  # seconds that Ctrl-C may take
_KINDS = ("start of a training", "start of a sampling", "SIGTERM and more of them", "SIGHUP")


def signals(count: int, seed: int, folder: pathlib.Path) -> collections.Counter:
    """Send signals `count` times and count what came of it."""
    draw, counts = random.Random(seed), collections.Counter()
    environment = os.environ | {"DIFFUX_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}

    def begin(*words: str) -> subprocess.Popen:
        command = [sys.executable, str(EXPERIMENTS / f"{words[0]}.py"), *words[1:]]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def training(workdir: pathlib.Path, steps: int) -> subprocess.Popen:
        return begin("train", *TRAINING, "--workdir", str(workdir), f"--config.steps={steps}")

    def whole(process: subprocess.Popen) -> float:
        began = time.monotonic()
        _, err = process.communicate(timeout=300)
        if process.returncode:
            raise Failed(f"an undisturbed command failed: {err[-1000:]}")
        return time.monotonic() - began

    run = folder / "run"
    whole(training(run, 4))  # fills the cache of data, and that of compilations
    start = whole(training(folder / "again", 1))
    sampling = ("sample", "--workdir", str(run), "--n", "4", "--steps", "5", "--out", str(folder / "samples.png"))
    length = min(whole(begin(*sampling)) for _ in range(2))  # the first compiles
    for i in range(count):
        kind = _KINDS[i % len(_KINDS)]
        if kind.startswith("start"):
            process = begin(*sampling) if "sampling" in kind else training(folder / f"start{i}", 1000)
            time.sleep(draw.uniform(0.1, length if "sampling" in kind else start))
            outcome = _interrupted(kind, process)
        else:
            number = signal.SIGHUP if kind == "SIGHUP" else signal.SIGTERM
            outcome = _stopped(training(folder / f"stop{i}", 10_000), folder / f"stop{i}", number, draw)
        counts[f"{kind}: {outcome}"] += 1
        print(f"{i + 1:3}  {kind}: {outcome}", flush=True)
    return counts


def _interrupted(kind: str, process: subprocess.Popen) -> str:
    if process.poll() is not None:
        process.communicate()
        return "it had ended"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return "FAILED, a hang"
    took = time.monotonic() - began
    if process.returncode == 130 and "stopped by a signal after step" in out:
        return "saved after its first step, 130"
    if process.returncode == 0:
        return "it was at its end"
    if process.returncode == -signal.SIGINT and not err.strip():
        return "Python itself was starting"
    if process.returncode != 130 or err.count("\n") != 1 or not err.startswith("interrupted: "):
        return f"FAILED, status {process.returncode}: {err[-300:]!r}"
    return "one line, 130" if took < PROMPT else f"FAILED, {took:.1f} s"


def _stopped(process: subprocess.Popen, workdir: pathlib.Path, number: int, draw: random.Random) -> str:
    said = []
    for line in process.stdout:
        said.append(line)
        if "first step after" in line:
            break
    time.sleep(draw.uniform(0, 1))
    process.send_signal(number)
    for _ in range(draw.randint(1, 4) if number == signal.SIGTERM else 0):
        time.sleep(draw.choice((0.001, 0.01, 0.05, 0.2)))
        process.send_signal(number)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        return "FAILED, a hang"
    words = [line for line in out.splitlines() if line.startswith("stopped by a signal after step ")]
    if process.returncode != 128 + number or not words:
        return f"FAILED, status {process.returncode}: {''.join(said)[-100:]!r} {out[-300:]!r} {err[-300:]!r}"
    step = int(words[0].split("after step ")[1].split(",")[0])
    return "saved as it said" if readable(workdir) == step else f"FAILED, {step} said and {readable(workdir)} saved"

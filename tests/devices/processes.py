"""Real processes on loopback: `start` one, `port` for several."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# experiments/train.py as it is, with a network that compiles in a moment, and where STUCK_AT says so a read that does not end.
TRAIN = """
import os
import sys
import time

import diffux.systems.ddpm
from diffux.cli import main
from diffux.training.batches import Batches
from tests.small import Tiny

read = Batches._next


def stuck(batches):
    if batches._due == int(os.environ.get("STUCK_AT", -1)):
        time.sleep(1000)
    return read(batches)


Batches._next = stuck
diffux.systems.ddpm.UNet = Tiny
sys.exit(main(["train", *sys.argv[1:]]))
"""

CONFIG = """
from ml_collections import ConfigDict
from tests.small import SMALL


def get_config():
    small = SMALL["training"] | {"checkpoint_every": 5, "log_every": 1, "steps": 40}
    return ConfigDict(SMALL | {"training": small, "sample": {"n": 2, "solver": "ddim", "steps": 2}})
"""

# What a launcher around the tests would say.
_LAUNCHERS = ("SLURM_", "OMPI_", "PMIX_", "JAX_COORDINATOR", "JAX_NUM_", "JAX_PROCESS_", "TPU_", "MEGASCALE_", "DIFFUX_", "XLA_")


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHERS) or k == "DIFFUX_CACHE"}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def start(program: str, *arguments: object, **more: str) -> subprocess.Popen:
    """`python -c program arguments`, its two outputs in one pipe, with `more` in its environment."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment(**more),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ends(processes: list[subprocess.Popen], timeout: float = 240) -> tuple[list[int], list[str]]:
    """The exit statuses and outputs of processes that end by themselves; those that do not are killed."""
    said = []
    try:
        for process in processes:
            said.append(process.communicate(timeout=timeout)[0])
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
    return [process.returncode for process in processes], said

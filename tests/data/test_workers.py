"""Processes that read data end with the one that they read for, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MAIN = """
import multiprocessing, time
from diffux import data
if __name__ == "__main__":
    batches = data.loader(data.load("digits"), batch_size=8, seed=0, workers=2)
    next(batches)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc").is_dir() else True


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "main.py").write_text(MAIN)
    process = subprocess.Popen([sys.executable, tmp_path / "main.py"], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2 and all(map(alive, workers))
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, workers))

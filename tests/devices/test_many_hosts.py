"""Two real processes on loopback train one run: what they save, and what is left when one or both are ended."""

import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from diffux import training
from diffux.runs import metrics
from tests.devices.processes import CONFIG, TRAIN, ends, port, start

HERE = "--coordinator=127.0.0.1:"


@pytest.fixture
def command(tmp_path):
    """The arguments of a run in a folder, of which `changes` are further flags."""
    config = tmp_path / "small.py"
    config.write_text(CONFIG)
    return lambda workdir, *changes: (f"--config={config}", f"--workdir={tmp_path / workdir}", *changes)


def pair(arguments, **more):
    address = port()
    return [start(TRAIN, *arguments, HERE + address, "--processes=2", f"--process={i}", **more) for i in (0, 1)]


def pair_with_a_stuck_one(arguments, batch, **more):
    """Process 1 lives, but its reading of a batch does not end."""
    address = port()
    return [start(TRAIN, *arguments, HERE + address, "--processes=2", f"--process={i}", STUCK_AT=str(batch if i else -1), **more)
            for i in (0, 1)]  # fmt: skip


def wait_for(path, processes, seconds=240):
    """Until a file has something in it."""
    deadline = time.monotonic() + seconds
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes), ends(processes, 1)
        time.sleep(0.02)


def checkpoint(workdir, step):
    return workdir / "checkpoints" / str(step) / "checksums.json"


def losses(workdir):
    """{(step, name): value} as the run wrote them."""
    rows = metrics.read(workdir)
    return {(row["step"], name): row[name] for row in rows for name in ("loss", "held_out_loss") if name in row}


def leaves(workdir):
    return [np.asarray(x) for raw in (True, False) for x in jax.tree.leaves(training.load(workdir, raw=raw).variables.params)]


@pytest.mark.full
def test_a_signal_to_one_process_ends_both_with_a_checkpoint(command, tmp_path):
    processes = pair(command("run", "--config.steps=100000", "--config.training.checkpoint_every=100000"))
    wait_for(tmp_path / "run" / "metrics.jsonl", processes)
    processes[1].send_signal(signal.SIGTERM)
    statuses, said = ends(processes)
    assert statuses == [143, 143], said
    (step,) = (int(folder.name) for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert f"stopped by a signal after step {step}, which is saved" in said[0]
    assert checkpoint(tmp_path / "run", step).exists()
    assert "loss" not in said[1] and "stopped" not in said[1]  # process 0 speaks for both


@pytest.mark.slow
def test_a_killed_run_of_two_continues_with_two_with_one_and_with_eight_devices(command, tmp_path):
    split = "--config.sharding.fsdp=2"
    statuses, said = ends(pair(command("undisturbed", split)))
    assert statuses == [0, 0], said
    killed = pair(command("killed", split))
    wait_for(checkpoint(tmp_path / "killed", 15), killed)
    for process in killed:
        process.send_signal(signal.SIGKILL)
    statuses, said = ends(killed)
    assert statuses == [-signal.SIGKILL] * 2 and not checkpoint(tmp_path / "killed", 40).exists(), said
    for other in ("one", "eight"):
        shutil.copytree(tmp_path / "killed", tmp_path / other)

    statuses, said = ends(pair(command("killed", split)))
    assert statuses == [0, 0] and "continuing the run in" in said[0], said
    for restarted, undisturbed in zip(leaves(tmp_path / "killed"), leaves(tmp_path / "undisturbed"), strict=True):
        np.testing.assert_array_equal(restarted, undisturbed)
    assert losses(tmp_path / "killed") == losses(tmp_path / "undisturbed")

    wanted = losses(tmp_path / "undisturbed")
    for workdir, fsdp, devices in (("one", 1, 1), ("eight", 4, 8)):
        flags = f"--xla_force_host_platform_device_count={devices}"
        statuses, said = ends([start(TRAIN, *command(workdir, f"--config.sharding.fsdp={fsdp}"), XLA_FLAGS=flags)])
        assert statuses == [0] and "continuing the run in" in said[0], said
        assert f"{devices} cpu device" in said[0]
        found = losses(tmp_path / workdir)
        assert {step for step, name in found if name == "loss"} == set(range(1, 41))
        assert found == pytest.approx(wanted, rel=1e-5), workdir


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_ends_the_run(command, tmp_path, way):
    processes = pair(command("run", "--config.steps=100000"), DIFFUX_LOST_TIMEOUT="5")
    wait_for(checkpoint(tmp_path / "run", 5), processes)
    processes[1].send_signal(way)
    statuses, said = ends(processes[:1], 60)
    ends(processes[1:], 0.1) if way == signal.SIGKILL else processes[1].kill()
    assert statuses == [75], said
    assert f"error: process 1 (host {os.uname().nodename}) is gone: it was silent for 5 s" in said[0]


@pytest.mark.slow
def test_a_process_that_is_stuck_at_the_start_ends_the_run(command, tmp_path):
    statuses, said = ends(pair_with_a_stuck_one(command("run"), 0, DIFFUX_BARRIER_TIMEOUT="15"))
    assert statuses == [75, 75], said
    assert f"error: process 1 (host {os.uname().nodename}) did not reach 'restored' within 15 s" in said[0]


@pytest.mark.full
def test_a_process_that_is_stuck_in_the_middle_ends_the_run(command, tmp_path):
    """The other is in a collective, and waits for it; what was saved stays."""
    arguments = command("run", "--config.steps=100000", "--config.data.held_out=None")  # nothing compiles on the way
    statuses, said = ends(pair_with_a_stuck_one(arguments, 12, DIFFUX_STUCK_TIMEOUT="15"))
    assert statuses == [75, 75], said
    for text in said:
        assert f"error: process 1 (host {os.uname().nodename}) is stuck in 'reading batch 12' for 15 s" in text
    assert checkpoint(tmp_path / "run", 10).exists()


@pytest.mark.full
def test_the_first_signal_ends_a_process_that_waits_at_the_start(command, tmp_path):
    processes = pair_with_a_stuck_one(command("run"), 0, DIFFUX_LOST_TIMEOUT="5")
    while not (tmp_path / "run" / ".lock").exists():
        time.sleep(0.1)
    time.sleep(5)
    processes[0].send_signal(signal.SIGTERM)
    assert processes[0].wait(10) == -signal.SIGTERM
    statuses, said = ends(processes, 60)
    assert statuses[1] != 0, said


@pytest.mark.slow
def test_the_death_of_process_0_aborts_the_others(command, tmp_path):
    processes = pair(command("run", "--config.steps=100000"), DIFFUX_LOST_TIMEOUT="5")
    wait_for(checkpoint(tmp_path / "run", 5), processes)
    processes[0].kill()
    statuses, said = ends(processes, 60)
    assert statuses == [-signal.SIGKILL, -signal.SIGABRT], said


@pytest.mark.slow
def test_another_config_is_refused_by_all(command, tmp_path):
    address = port()
    both = [start(TRAIN, *command("run"), HERE + address, "--processes=2", f"--process={i}", f"--config.seed={i}") for i in (0, 1)]
    statuses, said = ends(both)
    assert statuses == [2, 2] and all("start every process with the same command" in text for text in said), said


def test_a_missing_process_is_named(command, tmp_path):
    alone = start(TRAIN, *command("run"), HERE + port(), "--processes=2", "--process=0", "--start-timeout=2")
    statuses, (said,) = ends([alone])
    assert statuses == [75] and said.startswith("error: process 1 of 2 did not come to 127.0.0.1:"), said
    assert said.count("\n") == 1 and not (tmp_path / "run").exists()

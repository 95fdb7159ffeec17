"""What goes wrong around a run: writes that fail, a second process, reading processes that die, folders that were damaged."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from diffux import training
from diffux.devices.compilation_cache import remove_unfinished
from diffux.errors import StorageFailed, UserError
from diffux.runs import checkpoint, checksums, folder, metrics
from diffux.training import due, loop
from diffux.training.batches import Batches
from tests.training.test_loop import same

pytestmark = pytest.mark.usefixtures("quick")

ROOT = pathlib.Path(__file__).parents[2]
FAULTS = str(ROOT / "experiments" / "stress" / "run.py")


# ------------------------------------------------------------------------------------------------------ which ones stay

# The held-out loss of each save; the third best of all is step 1, and step 5 has none.
LOSSES = {1: 0.7, 2: 0.9, 3: 0.5, 4: 0.8, 5: None, 6: 0.6, 7: 0.95, 8: 0.99, 9: float("nan"), 10: 0.75}


@pytest.mark.parametrize(
    ("policy", "halfway", "end"),
    [
        ((1, 0, 0), {6}, {10}),
        ((2, 0, 0), {5, 6}, {9, 10}),
        ((2, 1, 0), {3, 5, 6}, {3, 9, 10}),
        ((1, 3, 0), {1, 3, 4, 6}, {1, 3, 6, 10}),  # the loss of 6 is known when the next step is saved
        ((1, 2, 4), {1, 3, 4, 6}, {3, 4, 6, 8, 10}),
        ((20, 0, 0), {1, 2, 3, 4, 5, 6}, set(range(1, 11))),
    ],
)
def test_the_last_the_best_and_every_kth_stay_across_a_resume(tmp_path, policy, halfway, end):
    for part, left in ((range(1, 7), halfway), (range(7, 11), end)):
        with checkpoint.Checkpoints(tmp_path, *policy) as saver:
            for step in part:
                saver.save(step, {"x": jnp.full(3, step)}, {"seed": 0})
                if LOSSES[step] is None:
                    continue
                saver.judged(step, LOSSES[step])
                with open(tmp_path / "metrics.jsonl", "a") as file:
                    print(json.dumps({"step": step, "held_out_loss": LOSSES[step]}), file=file)
        assert set(checkpoint.steps(tmp_path)) == left
    if 3 in end:
        assert checkpoint.best(tmp_path) == 3


def test_a_folder_of_another_name_is_no_step(tmp_path):
    assert checkpoint.steps(tmp_path) == []
    for name in ("3", "12", "007", "+5", "5 ", "٣", "²", "1e3", "6.orbax-checkpoint-tmp", "9" * 30, "latest"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "8").touch()  # of a step's name, so no step can be saved there
    assert checkpoint.steps(tmp_path) == [3, 8, 12]


# ------------------------------------------------------------------------------------------------------------- damages


@pytest.fixture
def saved(tmp_path):
    """A directory with the checkpoints 2 and 4."""
    with checkpoint.Checkpoints(tmp_path) as saver:
        for step in (2, 4):
            saver.save(step, {"x": jnp.full(3, step)}, {"seed": 0})
    return tmp_path


def _edit(step, change):
    table = json.loads((step / "checksums.json").read_text())
    (step / "checksums.json").write_text(json.dumps(change(table)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda step: (step / "run" / "metadata").write_text(""), "run/metadata has 0 of"),
        (lambda step: (step / "state" / "_METADATA").unlink(), "state/_METADATA is missing"),
        (lambda step: (step / "checksums.json").unlink(), "never finished"),
        (lambda step: (step / "checksums.json").write_text("[1]"), "lack state/_METADATA"),
        (lambda step: (step / "checksums.json").write_text("[" * 100_000), "cannot be read"),
        (lambda step: _edit(step, lambda table: {}), "lack state/_METADATA"),
        (lambda step: _edit(step, lambda table: {"../2/checksums.json": [1, ""]} | table), "a file outside of it"),
        (lambda step: _edit(step, lambda table: {"/etc/hostname": [1, ""]} | table), "a file outside of it"),
        (lambda step: _edit(step, lambda table: table | {"run/metadata": [10**30, ""]}), "of 1000000000000"),
        (lambda step: _edit(step, lambda table: table | {"run/metadata": None}), "cannot be read"),
    ],
)
def test_a_damaged_step_is_named_passed_over_and_left_alone(saved, damage, words):
    step = saved / "checkpoints" / "4"
    damage(step)
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    warned = []
    assert checkpoint.newest_good(saved, warned.append) == 2
    assert len(warned) == 1 and "checkpoint 4 in" in warned[0] and words in warned[0]
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before


def test_a_step_under_another_name_is_damaged(saved):
    folder = saved / "checkpoints"
    (folder / "2").rename(folder / "6")
    assert checkpoint.fault(saved, 6) == "it is a copy of step 2"
    checksums.write(folder / "4")
    assert checkpoint.fault(saved, 4) is None


def test_what_is_in_the_way_is_refused(config, tmp_path):
    for name, make in (("checkpoints", "touch"), ("metrics.jsonl", "mkdir"), ("samples.png", "mkdir"), ("tensorboard", "touch")):
        getattr(tmp_path / name, make)()
        with pytest.raises(UserError, match=rf"{name} is in the way"):
            training.train(config(), tmp_path)
        (tmp_path / name).rmdir() if make == "mkdir" else (tmp_path / name).unlink()
    assert not (tmp_path / "config.json").exists()


def test_the_config_of_a_damaged_file_comes_from_the_checkpoint(saved):
    (saved / "config.json").write_text("[]")
    assert folder.saved_config(saved) == {"seed": 0}
    (saved / "data.json").write_text('{"shape": [8, "8", 1], "classes": null, "examples": 3, "levels": 2}')
    with pytest.raises(UserError, match=r"data.json cannot be read \(the shape is"):
        folder.fields_of(saved)
    for step in (2, 4):
        (saved / "checkpoints" / str(step) / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"the config of the run in .* cannot be read"):
        folder.saved_config(saved)


def test_metrics_of_a_killed_process_are_read_and_continued(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n\xff\xfe\n[3]\n{"loss": 1}\n{"step": "x", "loss": 1}\n{"step": 2, "lo')
    with metrics.Metrics(tmp_path) as log:
        log.write(3, {"loss": 1.0, "rate": float("nan")})
    assert [(row["step"], row["loss"]) for row in metrics.read(tmp_path)] == [(1, 2.0), (3, 1.0)]
    assert metrics.read(tmp_path / "nowhere") == []


# ---------------------------------------------------------------------------------------------------- writes that fail


@contextlib.contextmanager
def no_file_above(size):
    """The system refuses to let any file of this process grow beyond `size` bytes, as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.full
def test_a_save_that_fails_ends_the_run_and_the_next_start_continues(config, tmp_path, monkeypatch, capfd):
    training.train(config(**{"training.steps": 9}), tmp_path / "straight")
    path = tmp_path / "full"
    training.train(config(**{"training.steps": 3}), path)
    kept = {file: file.read_bytes() for file in (path / "checkpoints" / "3").rglob("*") if file.is_file()}
    largest = max(len(content) for content in kept.values())
    save, message = checkpoint.Checkpoints.save, r"checkpoint 6 in .* could not be written \(File too large\); checkpoint 3 is kept"
    with contextlib.ExitStack() as stack, monkeypatch.context() as patch:

        def full(self, *arguments):
            stack.enter_context(no_file_above(largest - 1))
            save(self, *arguments)

        patch.setattr(checkpoint.Checkpoints, "save", full)
        with pytest.raises(StorageFailed, match=message):
            training.train(config(**{"training.steps": 9}), path)
    assert StorageFailed.status == 4
    assert "Traceback" not in capfd.readouterr().err
    assert {file: file.read_bytes() for file in kept} == kept and 6 not in checkpoint.steps(path)
    assert training.train(config(**{"training.steps": 9}), path).step == 9
    assert same(tmp_path / "straight", path) and not list((path / "checkpoints").glob("*tmp*"))


def test_a_full_disk_under_the_metrics(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with metrics.Metrics(tmp_path) as log, pytest.raises(StorageFailed, match=r"metrics.jsonl in .* \(No space left on device\)"):
        log.write(1, {"loss": 1.0})


def test_a_picture_that_cannot_be_written(config, tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(due.pictures, "picture", refused)
    with pytest.raises(StorageFailed, match=r"the picture of samples in .*; checkpoints? 3"):
        training.train(config(**{"training.sample_every": 3}), tmp_path)
    assert checkpoint.fault(tmp_path, 3) is None


# -------------------------------------------------------------------------------------------------------- two processes


def test_a_second_process_is_refused_while_the_first_one_lives(tmp_path):
    from diffux.runs.lock import only_one

    hold = "import sys, time, pathlib\nfrom diffux.runs.lock import only_one\n"
    hold += "with only_one(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"another process \(pid {process.pid}\) is training"), only_one(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    with only_one(tmp_path):  # nobody removed the file: the system let go of the lock
        assert (tmp_path / ".lock").read_text() == f"pid {os.getpid()}"
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock cannot be locked: Is a directory"), only_one(tmp_path):
        pass


# ---------------------------------------------------------------------------------------------- processes that read data


def test_batches_begin_again_where_a_reading_process_died():
    begun, warned = [], []

    def make(start, deaths):
        begun.append(start)
        for number in range(start, 10):
            if deaths and number == 4:
                deaths.pop()
                raise RuntimeError("Worker process was\nterminated unexpectedly with exit code -9.")
            yield number

    two = [1, 1]
    assert list(zip(range(8), Batches(lambda start: make(start, two), 0, warned.append), strict=False))[-1] == (7, 7)
    assert begun == [0, 4, 4] and len(warned) == 2 and "at batch 4" in warned[0] and "\n" not in warned[0]
    three = [1, 1, 1]
    batches = Batches(lambda start: make(start, three), 2, warned.append)
    assert [next(batches), next(batches)] == [2, 3]
    with pytest.raises(UserError, match=r"batch 4 cannot be read, tried 3 times: Worker process was terminated"):
        next(batches)


@pytest.mark.full
def test_a_run_whose_reading_process_is_killed_is_the_same_run(config, tmp_path, monkeypatch, capsys):
    # Enough steps to use up what the process had read ahead.
    longer = {"training.steps": 30, "training.checkpoint_every": 30}
    training.train(config(**longer), tmp_path / "straight")
    place, killed = loop.sharding.place_batch, []

    def placed(batch, mesh):
        readers = [child for child in multiprocessing.active_children() if child.pid not in killed]
        if len(killed) < 1 and readers:
            killed.extend(child.pid for child in readers)
            for child in readers:
                os.kill(child.pid, signal.SIGKILL)
        return place(batch, mesh)

    monkeypatch.setattr(loop.sharding, "place_batch", placed)
    assert training.train(config(**longer, **{"data.workers": 1}), tmp_path / "killed").step == 30
    assert len(killed) == 1 and "a data worker failed at batch" in capsys.readouterr().out
    assert same(tmp_path / "straight", tmp_path / "killed")


def test_entries_that_a_killed_process_left_half_written_leave_the_compilation_cache(tmp_path):
    whole, now = zlib.compress(bytes(range(256)) * 9), time.time()
    ages = {"whole": (whole, 60), "half": (whole[:100], 60), "empty": (b"", 60), "growing": (whole[:100], 0)}
    for name, (content, age) in ages.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
        os.utime(tmp_path / f"{name}-cache", (now - age, now - age))
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.glob("*-cache")} == {"whole-cache", "growing-cache"}
    os.utime(tmp_path / "growing-cache", (now - 60, now - 60))  # older than what was looked at: nobody looks again
    (tmp_path / "late-cache").write_bytes(whole[:100])
    os.utime(tmp_path / "late-cache", (now - 9, now - 9))
    os.utime(tmp_path / ".checked", (now - 20, now - 20))
    remove_unfinished(tmp_path)
    assert (tmp_path / "growing-cache").exists() and (tmp_path / "late-cache").exists()
    remove_unfinished(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# ------------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer.learning_rate": float("nan")}, "optimizer.learning_rate must be a finite float32, got nan"),
        ({"optimizer.clip": float("inf")}, "optimizer.clip must be a finite float32, got inf"),
        ({"sample.options": {"eta": 1e300}}, "sample.options.eta must be a finite float32"),
        ({"training.steps": 2**31}, "training.steps must be at most 2147483647"),
        ({"training.steps": 10**400}, "got about 1e400"),
        ({"data.workers": 10**5}, "data.workers must be at most 1024"),
        ({"data.channels": {}}, "data.channels is a value, not a section"),
        ({"optimizer.options": 3}, "optimizer.options is a section of settings, got 3"),
        ({"sample.steps": "many"}, "sample.steps must be a whole number, or None, got 'many'"),
        ({"sample.guidance": [[1.0]]}, "guidance is a classifier-free scale, or transforms such as"),
        ({"system.dropout": [0.1]}, "dropout of system ddpm must be a number, got [0.1]"),
        ({"system.clip": 1}, "clip of system ddpm must be True or False, got 1"),
        ({"system.multipliers": ["a"]}, "multipliers of system ddpm must be a sequence of numbers, got ['a']"),
        ({"system.blocks": 10**5}, "blocks of system ddpm must be at most 1000"),
        ({"system.steps": 10**9}, "steps of system ddpm must be at most 1000000"),
        ({"data.batch_size": 2**31 - 1}, "a batch of data.batch_size 2147483647 would take 512 GiB"),
        ({"sample.n": 2**31 - 1}, "pictures of sample.n 2147483647 would take 512 GiB"),
        ({"data.size": 10**5}, "GiB, and this machine has"),
    ],
)
def test_numbers_types_and_sizes_are_refused_before_they_cost_anything(config, tmp_path, change, message):
    with pytest.raises(UserError) as raised:
        training.train(config(**change), tmp_path / "run")
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "config.json").exists()


# ------------------------------------------------------------------------------------------------------ the script of all


@pytest.mark.slow
@pytest.mark.parametrize("part", ["--kills=5 --seed=7", "--damage=66 --seed=7", "--mutations=240 --seed=11", "--disks=4 --seed=7"])
def test_the_script_of_faults(part, cache):
    environment = os.environ | {"DIFFUX_CACHE": str(cache), "JAX_PLATFORMS": "cpu", "PYTHONPATH": ""}
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    if "disks" in part and (shutil.which("unshare") is None or subprocess.run(mount, check=False).returncode):
        pytest.skip("file systems cannot be mounted here")
    done = subprocess.run([sys.executable, FAULTS, *part.split()], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert np.all([word not in done.stdout for word in ("FAILED", "Traceback")])

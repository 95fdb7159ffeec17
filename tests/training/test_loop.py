"""The loop: what it leaves behind, continuing, stopping, and what it refuses."""

import json
import logging
import os
import signal

import jax
import numpy as np
import pytest

from diffux import training
from diffux.training import checkpoint, loop, metrics
from diffux.training.errors import Diverged, UserError


def leaves(workdir, raw=True):
    variables = training.load(workdir, raw=raw).variables
    return [np.asarray(leaf) for leaf in jax.tree.leaves(variables.params if raw else variables.ema)]


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(leaves(one), leaves(other), strict=True)) and all(
        a.tobytes() == b.tobytes() for a, b in zip(leaves(one, raw=False), leaves(other, raw=False), strict=True)
    )


def interrupt_at(monkeypatch, step, number=signal.SIGINT):
    """Send the signal while the update after `step` others is being prepared."""
    place, calls = loop.sharding.place_batch, []

    def placed(batch, mesh):
        calls.append(1)
        # The first call makes the shapes that are compiled for, and the held-out loss places batches of its own.
        if len(calls) == step + 2:
            os.kill(os.getpid(), number)
        return place(batch, mesh)

    monkeypatch.setattr(loop.sharding, "place_batch", placed)


def test_a_run_leaves_what_it_promises(config, tmp_path):
    result = training.train(config(**{"training.sample_every": 3}), tmp_path / "run")
    assert result.step == 6 and result.signal is None
    names = {path.name for path in result.workdir.iterdir()}
    assert {"samples.png", "losses.png", "samples", "checkpoints", "tensorboard", "metrics.jsonl"} <= names
    assert sorted(path.name for path in (result.workdir / "samples").iterdir()) == ["step_000003.png", "step_000006.png"]
    assert json.loads((result.workdir / "config.json").read_text())["optimizer"]["name"] == "adam"
    assert json.loads((result.workdir / "versions.json").read_text())["jax"] == jax.__version__
    assert json.loads((result.workdir / "data.json").read_text())["shape"] == [8, 8, 1]
    rows = metrics.read(result.workdir)
    assert [row["step"] for row in rows if "loss" in row] == [2, 3, 4, 6]
    assert [row["step"] for row in rows if "held_out_loss" in row] == [3, 6]
    assert any(
        "seconds_to_first_step" in row for row in map(json.loads, (result.workdir / "metrics.jsonl").read_text().splitlines())
    )
    assert list((result.workdir / "tensorboard").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_continues_bit_for_bit(config, tmp_path, monkeypatch, number):
    training.train(config(), tmp_path / "straight")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1, number)
        result = training.train(config(), tmp_path / "stopped")
    assert result.signal == number and result.step == 2
    assert checkpoint.steps(tmp_path / "stopped") == [2]
    assert training.train(config(), tmp_path / "stopped").step == 6
    assert same(tmp_path / "straight", tmp_path / "stopped")


def test_a_finished_run_is_extended_as_if_it_had_been_longer(config, tmp_path, capsys):
    training.train(config(**{"training.steps": 6}), tmp_path / "straight")
    training.train(config(**{"training.steps": 4}), tmp_path / "extended")
    before = (tmp_path / "extended" / "samples.png").stat().st_mtime_ns
    assert training.train(config(**{"training.steps": 4}), tmp_path / "extended").step == 4
    assert "is finished: 4 steps" in capsys.readouterr().out
    assert (tmp_path / "extended" / "samples.png").stat().st_mtime_ns == before
    assert training.train(config(**{"training.steps": 6}), tmp_path / "extended").step == 6
    assert same(tmp_path / "straight", tmp_path / "extended")


def test_a_damaged_newest_checkpoint_is_passed_over_and_kept(config, tmp_path, capsys):
    training.train(config(), tmp_path / "straight")
    training.train(config(), tmp_path / "damaged")
    (tmp_path / "damaged" / "checkpoints" / "9").mkdir()  # a folder that was never filled
    array = max((tmp_path / "damaged" / "checkpoints" / "6").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(array.read_bytes())
    content[len(content) // 2] ^= 1
    array.write_bytes(content)
    assert training.train(config(), tmp_path / "damaged").step == 6
    said = capsys.readouterr().out
    assert "checkpoint 9 in" in said and "checkpoint 6 in" in said and "step 3" in said
    assert sorted(path.name for path in (tmp_path / "damaged" / "checkpoints.damaged").iterdir()) == ["6", "9"]
    assert same(tmp_path / "straight", tmp_path / "damaged")


def test_the_second_step_does_not_compile(config, tmp_path, monkeypatch):
    compiled, marks, traced = [], [], []
    place, make = loop.sharding.place_batch, loop.make_update

    class Listen(logging.Handler):
        def emit(self, record):
            compiled.append(record.getMessage())

    def counted(*arguments, **options):
        update = make(*arguments, **options)
        return lambda *arguments: (traced.append(1), update(*arguments))[1]

    def marked(batch, mesh):
        marks.append(sum("Finished XLA compilation" in message for message in compiled))
        return place(batch, mesh)

    monkeypatch.setattr(loop, "make_update", counted)
    monkeypatch.setattr(loop.sharding, "place_batch", marked)
    logging.getLogger("jax._src.dispatch").addHandler(handler := Listen())
    try:
        with jax.log_compiles():
            training.train(config(**{"training.steps": 9, "training.checkpoint_every": 9}), tmp_path)
    finally:
        logging.getLogger("jax._src.dispatch").removeHandler(handler)
    assert len(traced) == 1
    # The shapes, and then nine steps: from the second on, nothing at all is compiled.
    assert marks[0] > 0 and marks[2] == marks[9]


def test_the_average_is_what_the_best_checkpoint_is_chosen_by(config, tmp_path):
    training.train(config(**{"training.steps": 8, "training.checkpoint_every": 2, "training.keep": 1}), tmp_path)
    losses = {row["step"]: row["held_out_loss"] for row in metrics.read(tmp_path) if "held_out_loss" in row}
    best = min(losses, key=losses.get)
    assert sorted(losses) == [2, 4, 6, 8] and checkpoint.best(tmp_path) == best
    assert checkpoint.steps(tmp_path) == sorted({best, 8})


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(config, tmp_path, monkeypatch):
    training.train(config(**{"training.steps": 3}), tmp_path)
    before = leaves(tmp_path)
    batch = loop.sharding.place_batch

    def poisoned(values, mesh):
        return jax.tree.map(lambda x: x * np.float32("nan") if x.dtype == np.float32 else x, batch(values, mesh))

    monkeypatch.setattr(loop.sharding, "place_batch", poisoned)
    with pytest.raises(Diverged, match=r"diverged at step 4 .* checkpoint 3 is kept"):
        training.train(config(), tmp_path)
    assert checkpoint.steps(tmp_path) == [3]
    assert all((a == b).all() for a, b in zip(before, leaves(tmp_path), strict=True))


def test_a_labelled_system_and_accumulated_gradients(config, tmp_path):
    small = config(**{"system.classes": 10, "optimizer.accumulate": 2, "sample.guidance": 2.0})
    assert training.train(small, tmp_path).step == 6
    with pytest.raises(UserError, match="5 classes and digits has 10"):
        training.train(config(**{"system.classes": 5}), tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system.name": "ddmp"}, "unknown system 'ddmp'; did you mean 'ddpm'"),
        ({"system.chanels": 3}, "unknown option of system ddpm 'chanels'; did you mean 'channels'"),
        ({"system.betas": "cosin"}, "did you mean 'cosine'"),
        ({"data.name": "digit"}, "digits"),
        ({"data.split": "trian"}, "train"),
        ({"data.crop": 99}, "crop"),
        ({"data.batch": 3}, "did you mean 'data.batch_size'"),
        ({"optimizer.name": "adm"}, "did you mean 'adam'"),
        ({"optimizer.options": {"b3": 1}}, "unknown option of optimizer adam 'b3'"),
        ({"optimizer.schedule": "cosin"}, "did you mean 'cosine'"),
        ({"optimizer.accumulate": 3}, "does not divide"),
        ({"training.steps": -1}, "training.steps must be at least 1, got -1"),
        ({"training.steps": "many"}, "training.steps must be a whole number, got 'many'"),
        ({"training.steps": 2.5}, "training.steps must be a whole number, got 2.5"),
        ({"data.flip": 3}, "data.flip must be True or False, got 3"),
        ({"sample.solver": "ddmi"}, "did you mean 'ddim'"),
        ({"sample.steps": 101}, "100"),
        ({"sample.grid": "karas"}, "did you mean 'karras'"),
        ({"sample.guidance": 2.0}, "unconditional"),
        ({"sharding.fsdp": 3}, "does not divide the 1 devices"),
    ],
)
def test_what_cannot_work_is_refused_before_the_directory_is_written(config, tmp_path, change, message):
    wanted = config()
    for key, value in change.items():
        section, name = key.split(".")
        wanted.setdefault(section, {})[name] = value
    with pytest.raises(UserError) as raised:
        training.train(wanted, tmp_path / "run")
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_another_config_is_refused_and_nothing_is_touched(config, tmp_path):
    training.train(config(**{"training.steps": 3}), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(UserError, match=r"another config: optimizer.learning_rate \(0.01, now 0.02\) differ"):
        training.train(config(**{"optimizer.learning_rate": 0.02}), tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        (path / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        training.train(config(), tmp_path)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {path: data for path, data in before.items() if path.name != "checksums.json"} == after


def test_a_directory_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        training.train(config(), tmp_path / "file" / "run")


def test_two_processes_do_not_share_a_directory(config, tmp_path):
    from diffux.training.lock import only_one

    with only_one(tmp_path), pytest.raises(UserError, match=rf"another process \(pid {os.getpid()}\) is training"):
        training.train(config(), tmp_path)
    assert not (tmp_path / "config.json").exists()

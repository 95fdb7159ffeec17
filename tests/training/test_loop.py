"""The loop: what it leaves behind, continuing, stopping, and what it refuses."""

import json
import logging
import os
import signal

import jax
import numpy as np
import pytest

from diffux import data, training
from diffux.errors import Diverged, UserError
from diffux.runs import checkpoint, metrics
from diffux.training import loop, program

pytestmark = pytest.mark.usefixtures("quick")


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
        # The held-out loss places batches of its own.
        if len(calls) == step + 1:
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
    about = json.loads((result.workdir / "data.json").read_text())
    assert about["examples"] == 1437 and about["fingerprint"] == data.load("digits").fingerprint
    image = {"kind": "image", "shape": [8, 8, 1], "dtype": "float32", "levels": 17}  # as dequantised batches hold it
    assert about["fields"]["image"] == image and about["fields"]["label"]["classes"] == 10
    rows = metrics.read(result.workdir)
    assert [row["step"] for row in rows if "loss" in row] == [2, 3, 4, 6]
    assert [row["step"] for row in rows if "held_out_loss" in row] == [3, 6]
    assert any(
        "seconds_to_first_step" in row for row in map(json.loads, (result.workdir / "metrics.jsonl").read_text().splitlines())
    )
    assert list((result.workdir / "tensorboard").iterdir())


@pytest.mark.full(but=("2",))
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


@pytest.mark.full
def test_a_finished_run_is_extended_as_if_it_had_been_longer(config, tmp_path, capsys):
    training.train(config(**{"training.steps": 6}), tmp_path / "straight")
    training.train(config(**{"training.steps": 4}), tmp_path / "extended")
    before = (tmp_path / "extended" / "samples.png").stat().st_mtime_ns
    assert training.train(config(**{"training.steps": 4}), tmp_path / "extended").step == 4
    assert "is finished: 4 steps" in capsys.readouterr().out
    assert (tmp_path / "extended" / "samples.png").stat().st_mtime_ns == before
    said = {name: (tmp_path / "extended" / name).read_text() for name in ("config.json", "data.json")}
    for name in said:  # a finished run is told again what it lost
        (tmp_path / "extended" / name).unlink()
        training.train(config(**{"training.steps": 4}), tmp_path / "extended")
        assert (tmp_path / "extended" / name).read_text() == said[name]
    (tmp_path / "extended" / "config.json").write_text("{}")  # a checkpoint says it as well
    assert training.train(config(**{"training.steps": 6}), tmp_path / "extended").step == 6
    assert same(tmp_path / "straight", tmp_path / "extended")


@pytest.mark.full
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
    place, make = loop.sharding.place_batch, program.make_update

    class Listen(logging.Handler):
        def emit(self, record):
            compiled.append(record.getMessage())

    def counted(*arguments, **options):
        update = make(*arguments, **options)
        return lambda *arguments: (traced.append(1), update(*arguments))[1]

    def marked(batch, mesh):
        marks.append(sum("Finished XLA compilation" in message for message in compiled))
        return place(batch, mesh)

    monkeypatch.setattr(program, "make_update", counted)
    monkeypatch.setattr(loop.sharding, "place_batch", marked)
    logging.getLogger("jax._src.dispatch").addHandler(handler := Listen())
    try:
        with jax.log_compiles():
            training.train(config(**{"training.steps": 9, "training.checkpoint_every": 9}), tmp_path)
    finally:
        logging.getLogger("jax._src.dispatch").removeHandler(handler)
    assert len(traced) == 1
    # Nine steps: from the second on, nothing at all is compiled.
    assert marks[0] > 0 and marks[1] == marks[8]


def test_the_average_is_what_the_best_checkpoint_is_chosen_by(config, tmp_path):
    training.train(config(**{"training.steps": 8, "training.checkpoint_every": 2, "training.keep": 1}), tmp_path)
    losses = {row["step"]: row["held_out_loss"] for row in metrics.read(tmp_path) if "held_out_loss" in row}
    best = min(losses, key=losses.get)
    assert sorted(losses) == [2, 4, 6, 8] and checkpoint.best(tmp_path) == best
    assert {best, 8} <= set(checkpoint.steps(tmp_path)) and len(checkpoint.steps(tmp_path)) == 2


def test_a_step_is_saved_before_it_is_judged(config, tmp_path, monkeypatch):
    def fails(self, state):
        raise RuntimeError("the held-out data are gone")

    monkeypatch.setattr(loop.HeldOut, "__call__", fails)
    with pytest.raises(RuntimeError, match="held-out data are gone"):
        training.train(config(**{"training.steps": 4, "training.checkpoint_every": 2}), tmp_path)
    assert checkpoint.newest_good(tmp_path, print) == 2


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(config, tmp_path, monkeypatch):
    training.train(config(**{"training.steps": 3}), tmp_path)
    before = leaves(tmp_path)
    batch = loop.sharding.place_batch

    def poisoned(values, mesh):
        return jax.tree.map(lambda x: x * np.float32("nan") if x.dtype == np.float32 else x, batch(values, mesh))

    monkeypatch.setattr(loop.sharding, "place_batch", poisoned)
    with pytest.raises(Diverged, match=r"diverged at step 4 .* checkpoint 3 is kept, and what the step met in .*step_000004.json"):
        training.train(config(), tmp_path)
    assert checkpoint.steps(tmp_path) == [3]
    assert all((a == b).all() for a, b in zip(before, leaves(tmp_path), strict=True))
    met = json.loads((tmp_path / "diagnostics" / "step_000004.json").read_text())
    assert met["metrics"]["loss"] == "nan" and met["batch"]["image"]["not_finite"] == 0  # the poison came after the loader
    assert {norms["gradient"] for norms in met["norms"].values()} == {"nan"}
    assert all(norms["parameter"] > 0 for name, norms in met["norms"].items() if "kernel" in name)
    assert np.load(tmp_path / "diagnostics" / "step_000004.npz")["image"].shape == (16, 8, 8, 1)


def poison_steps(monkeypatch, numbers):
    """Give the steps of these numbers infinite pixels; what is looked into afterwards is the batch again."""
    place, taken = loop.sharding.place_batch, []

    def placed(batch, mesh):
        if not any(batch is earlier for earlier in taken):
            taken.append(batch)
        if batch is taken[-1] and len(taken) in numbers:
            batch = batch | {"image": batch["image"] * np.float32("inf")}
        return place(batch, mesh)

    monkeypatch.setattr(loop.sharding, "place_batch", placed)


@pytest.mark.full
def test_faulty_steps_are_skipped_and_change_nothing_else(config, tmp_path, monkeypatch, capsys):
    skipping = config(**{"training.steps": 5, "training.checkpoint_every": 5, "faults.action": "skip", "optimizer.name": "sgd"})
    with monkeypatch.context() as patch:
        poison_steps(patch, (2, 3, 5))
        assert training.train(skipping, tmp_path / "skipped").step == 5
    said = capsys.readouterr().out
    assert all(f"step {step} is skipped" in said for step in (2, 3, 5)) and said.count("is skipped") == 3
    assert all(np.isfinite(leaf).all() for leaf in leaves(tmp_path / "skipped"))
    assert "training 5/5: every step was skipped" in said
    rows = metrics.read(tmp_path / "skipped")
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    # SGD without momentum: steps 1 and 4 alone, whose batches and randomness are the first and the fourth's.
    with monkeypatch.context() as patch:
        poison_steps(patch, (2, 3))
        training.train(skipping | {"training": skipping["training"] | {"steps": 4}}, tmp_path / "shorter")
    assert all((a == b).all() for a, b in zip(leaves(tmp_path / "skipped"), leaves(tmp_path / "shorter"), strict=True))
    with monkeypatch.context() as patch, pytest.raises(Diverged, match=r"diverged at step 4 \(3 steps in a row\)"):
        poison_steps(patch, (2, 3, 4))
        training.train(skipping | {"faults": {"action": "skip", "most_skips": 2}}, tmp_path / "many")


@pytest.mark.full
def test_a_loss_above_its_bound_is_a_fault(config, tmp_path):
    with pytest.raises(Diverged, match=r"diverged at step 1 \(.*loss .*no checkpoint had been saved"):
        training.train(config(**{"faults.largest_loss": 1e-3}), tmp_path / "loss")
    with pytest.raises(Diverged, match="diverged at step 1 "):
        training.train(config(**{"faults.largest_gradient": 1e-6}), tmp_path / "gradient")


@pytest.mark.full
def test_the_bound_of_a_gradient_is_one_of_its_norm(config, tmp_path):
    """Between the norm and the loss, which differ: a step is at fault where the norm is above it, whatever the loss."""
    training.train(config(**{"training.steps": 1, "training.log_every": 1}), tmp_path / "one")
    row = next(row for row in metrics.read(tmp_path / "one") if "loss" in row)
    between, bounded = (row["loss"] + row["grad_norm"]) / 2, {"training.steps": 1}
    assert abs(row["loss"] - row["grad_norm"]) > 0.01
    bounded = config(**bounded | {"faults.largest_gradient": between})
    if row["grad_norm"] > between:
        with pytest.raises(Diverged, match="diverged at step 1 "):
            training.train(bounded, tmp_path / "bounded")
    else:
        assert training.train(bounded, tmp_path / "bounded").step == 1


def test_the_held_out_loss_is_of_the_averaged_weights(config, tmp_path, monkeypatch):
    judge, found = loop.HeldOut.__call__, []

    def judged(self, state):
        nothing = lambda tree: jax.tree.map(lambda x: 0 * x, tree)  # noqa: E731
        variants = (state, state.replace(params=nothing(state.params)), state.replace(ema=nothing(state.ema)))
        found.append([judge(self, variant) for variant in variants])
        return found[-1][0]

    monkeypatch.setattr(loop.HeldOut, "__call__", judged)
    training.train(config(**{"training.steps": 2}), tmp_path)
    loss, without_weights, without_averages = found[0]
    assert loss == without_weights and loss != without_averages


@pytest.mark.full
def test_a_labelled_system_and_accumulated_gradients(config, tmp_path):
    small = config(**{"system.classes": 10, "optimizer.accumulate": 2, "sample.guidance": 2.0})
    assert training.train(small, tmp_path).step == 6
    with pytest.raises(UserError, match="knows 5 values of label, and digits has 10"):
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
        ({"sharding.fsdp": 3}, "sharding data=-1, fsdp=3, tensor=1 does not make up the 1 device there is"),
        ({"sharding.data": 0}, "the sizes of the sharding axes are at least 1"),
        ({"sharding.rules": [["kernel", "splt"]]}, "unknown sharding rule 'splt'; did you mean 'split'"),
        ({"sharding.rules": [["(", "split"]]}, "is no regular expression"),
        ({"sharding.optimizer": "shared"}, "did you mean 'sharded'"),
        ({"compute.dtype": "bf16"}, "unknown value of config.compute.dtype 'bf16'; did you mean 'bfloat16'"),
        ({"compute.remat": "block"}, "did you mean 'blocks'"),
        ({"faults.action": "ignore"}, "unknown value of config.faults.action 'ignore'"),
        ({"faults.largest_loss": 0}, "must be a number above 0, or None"),
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
    from diffux.runs.lock import only_one

    with only_one(tmp_path), pytest.raises(UserError, match=rf"another process \(pid {os.getpid()}\) is training"):
        training.train(config(), tmp_path)
    assert not (tmp_path / "config.json").exists()

"""Averages chosen after a run, the snapshots that they are made from, and weights in a file of their own."""

import copy
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import diffux.systems.ddpm
from diffux import averages as ema
from diffux import training
from diffux.errors import UserError
from diffux.runs import checkpoint, export, snapshots, tensors
from diffux.runs.folder import NOTHING
from diffux.sampling import files
from diffux.version import __version__
from tests.small import SMALL, Tiny

pytestmark = pytest.mark.usefixtures("quick")

STEPS = {"steps": 60, "log_every": 30, "checkpoint_every": 20, "keep": 2}


def train(workdir, **section):
    config = copy.deepcopy(SMALL) | {"ema": section}
    config["training"] |= STEPS
    return training.train(config, workdir).workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """60 steps with two exponential and two power-function averages, and snapshots; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffux.systems.ddpm, "UNet", Tiny)
        return train(tmp_path_factory.mktemp("averages"), decay=(0.5, 0.8), power=(0.05, 0.1), snapshot_every=4)


def weights(workdir, **chosen):
    return training.load(workdir, warn=lambda said: None, **chosen).variables.params


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other))


def apart(one, other):
    """The distance of two trees of parameters, relative to the second's norm."""
    one, other = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64) for tree in (one, other))
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.full
def test_every_average_can_be_chosen(run):
    trees = {name: weights(run, average=name) for name in ("0.5", "0.8", "power_0.05", "power_0.1")}
    trees["raw"] = weights(run, raw=True)
    for name, tree in trees.items():
        assert sum(same(tree, other) for other in trees.values()) == 1, name
    # wider averages are further from the last parameters
    distances = [apart(trees[name], trees["raw"]) for name in ("0.5", "0.8", "power_0.05", "power_0.1")]
    assert distances[0] < distances[1] and distances[2] < distances[3]
    assert same(weights(run), trees["0.5"]) and same(weights(run, average="power_0.050"), trees["power_0.05"])
    assert training.load(run).weights == "ema 0.5" and training.load(run, raw=True).weights == "raw"
    assert same(snapshots._read(run, 60)["power_0.1"], trees["power_0.1"])
    assert snapshots.steps(run) == list(range(4, 61, 4))


@pytest.mark.full
def test_an_average_of_another_width_is_that_of_a_run_that_kept_it(run, tmp_path):
    direct = train(tmp_path / "direct", decay=(0.5,), power=(0.075,))
    assert same(weights(direct, raw=True), weights(run, raw=True))
    kept = weights(direct, average="power_0.075")
    made = training.load(run, average=0.075)
    assert made.step == 60 and made.weights == "ema power_0.075, reconstructed from 15 snapshots"
    nearest = min(apart(weights(run, average=name), kept) for name in ("power_0.05", "power_0.1"))
    assert apart(made.variables.ema, kept) < nearest / 50, (apart(made.variables.ema, kept), nearest)
    # of a step whose checkpoint is long gone, and of a width that was kept
    assert checkpoint.steps(run) == [40, 60]
    early = weights(run, average="power_0.05", step=20)
    assert apart(early, snapshots._read(run, 20)["power_0.05"]) < 1e-6


def test_the_samples_can_come_from_another_average(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["ema"]["samples_from"] = "power_0.1"
    (other / "config.json").write_text(json.dumps(config))
    assert training.load(other).weights == "ema power_0.1"


def test_a_continued_run_writes_the_same_snapshots(run, tmp_path):
    """The newest checkpoint is lost, a snapshot after the one before it is damaged, and one is of no step that comes again."""
    other = shutil.copytree(run, tmp_path / "other")
    shutil.rmtree(checkpoint.path(other, 60))
    snapshots.path(other, 56).write_bytes(b"")
    shutil.copy(snapshots.path(other, 48), snapshots.path(other, 49))
    config = json.loads((other / "config.json").read_text())
    assert training.train(config, other).step == 60
    assert snapshots.steps(other) == snapshots.steps(run)
    for step in snapshots.steps(run):
        (ours, about), (theirs, theirs_about) = (tensors.read(snapshots.path(workdir, step)) for workdir in (run, other))
        assert same(ours, theirs) and about == theirs_about == {"step": str(step)}


def test_damaged_snapshots_are_left_out_with_a_warning(run, tmp_path):
    other, said = shutil.copytree(run, tmp_path / "other"), []
    content = snapshots.path(other, 20).read_bytes()
    snapshots.path(other, 20).write_bytes(content[: len(content) // 2])
    flipped = bytearray(snapshots.path(other, 40).read_bytes())
    flipped[-5] ^= 1
    snapshots.path(other, 40).write_bytes(flipped)
    shutil.copy(snapshots.path(other, 24), snapshots.path(other, 28))
    (other / "averages" / ".44.safetensors.part").write_bytes(content[:100])
    made = training.load(other, average=0.075, warn=said.append)
    assert made.weights.endswith("from 12 snapshots") and len(said) == 3
    for text, words in zip(said, ("step 20 is left out", "step 28 is left out", "step 40 is left out"), strict=True):
        assert words in text
    assert "is of step 24" in said[1] and "altered" in said[2]
    assert apart(made.variables.ema, weights(run, average=0.075)) < 1e-3


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"average": "0.88"}, "unknown average '0.88'; did you mean '0.8'"),
        ({"average": "best"}, "Known: 0.5, 0.8, power_0.05, power_0.1, power_X of any width X, raw"),
        ({"average": "0.5", "raw": True}, "exclude each other"),
        ({"average": 0.5}, "at most 0.2887"),
        ({"average": "power_0.07", "step": 21}, "no whole snapshot of step 21 to make power_0.07 from; there are: [4, 8, 12,"),
        ({"average": "power_0.07", "step": "newest"}, "no whole snapshot of step newest"),
        ({"average": "0.5", "step": 4}, "no checkpoint of step 4"),
    ],
)
def test_averages_that_are_not_there(run, chosen, message):
    with pytest.raises(UserError) as raised:
        training.load(run, **chosen)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_run_without_snapshots_says_so(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other", ignore=shutil.ignore_patterns("averages"))
    with pytest.raises(UserError, match=r"no average power_0.07, and no snapshots .*: 0.5, 0.8, power_0.05, power_0.1, raw"):
        training.load(other, average=0.07)


PROCESS = """
import sys
import jax

jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
import pathlib
import jax.numpy as jnp, numpy as np
from diffux.devices import mesh as sharding
from diffux.runs import snapshots

mesh = sharding.make_mesh(sharding.Sharding(fsdp=4))
tree = {"params": {"kernel": np.arange(48, dtype=np.float32).reshape(8, 6), "bias": np.arange(3, dtype=np.float32)}}
placed = sharding.place(tree, sharding.resolve(tree, mesh))
assert len({str(shard.index) for shard in placed["params"]["kernel"].addressable_shards}) == 2  # two of four parts
folder = pathlib.Path(sys.argv[3], sys.argv[2])
snapshots.write(folder, 3, {"power_0.1": placed["params"], "power_0.2": jax.tree.map(lambda x: 2 * x, placed["params"])}, mesh)
print("WROTE", snapshots.steps(folder))
"""


@pytest.mark.full
def test_split_averages_of_two_processes_are_stored_whole_by_the_first(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", PROCESS, port]
    pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([*command, str(i), str(tmp_path)], env=environment, **pipes) for i in (0, 1)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "WROTE [3]" in said[0][0] and "WROTE []" in said[1][0]
    (step, width, first), (_, wider, second) = snapshots.load(tmp_path / "0", 3, print)
    assert (step, width, wider) == (3, 0.1, 0.2)
    np.testing.assert_array_equal(first()["kernel"], np.arange(48).reshape(8, 6))
    np.testing.assert_array_equal(second()["kernel"], 2 * np.arange(48).reshape(8, 6))


@pytest.mark.parametrize("chosen", [{"raw": True}, {"average": "0.8"}, {"average": 0.075}])
def test_an_export_is_the_weights_bit_for_bit(run, tmp_path, chosen):
    whole = training.load(run, **chosen)
    file = export.write(whole, tmp_path / "a" / "model.safetensors")
    params, said = export.read(file)
    assert same(params, whole.variables.params)
    assert tensors.read(file)[1]["diffux"] == __version__ and (said.step, said.weights) == (60, whole.weights)
    assert said.config == whole.plan.config == json.loads((run / "config.json").read_text())
    assert said.fields == whole.fields and said.parts == NOTHING
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]
    (file.parent / "plain").touch()
    assert file.stat().st_mode == (file.parent / "plain").stat().st_mode
    again = training.load(file)
    assert same(again.variables, whole.variables)
    assert (again.weights, again.step, again.shape, again.plan.config) == (whole.weights, 60, (8, 8, 1), whole.plan.config)


def test_an_export_is_read_by_other_libraries(run, tmp_path):
    whole = training.load(run)
    kernel = np.asarray(whole.variables.params["network"]["Conv_0"]["kernel"])
    file = export.write(whole, tmp_path / "model.safetensors")
    found = safetensors.numpy.load_file(file)
    assert len(found) == len(jax.tree.leaves(whole.variables.params))
    np.testing.assert_array_equal(found["network/Conv_0/kernel"], kernel)
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    for dtype in export.DTYPES:
        file = export.write(whole, tmp_path / "model.safetensors", dtype=dtype)
        tensor = load_file(file)["network/Conv_0/kernel"]
        assert tensor.dtype == getattr(torch, dtype)
        # torch rounds to the same bits
        assert torch.equal(tensor, torch.from_numpy(kernel.copy()).to(tensor.dtype))
        params, _ = export.read(file)
        assert params["network"]["Conv_0"]["kernel"].dtype == jnp.dtype(dtype)
        assert training.load(file).variables.params["network"]["Conv_0"]["kernel"].dtype == jnp.float32


def test_samples_of_an_export_are_those_of_the_run(run, tmp_path):
    file = export.write(training.load(run, average="power_0.1"), tmp_path / "model.safetensors")

    def drawn(model, *out, **chosen):
        return files.sample(files.models({"model": model}, solver="ddim", steps=2, **chosen), out, n=3)

    ours = drawn(run, average="power_0.1")
    np.testing.assert_array_equal(drawn(file, tmp_path / "x.npz"), ours)
    assert not np.array_equal(ours, drawn(run))
    assert np.load(tmp_path / "x.npz")["weights"] == "ema power_0.1"
    with pytest.raises(UserError, match=r"one kind of weights, ema power_0.1 of step 60"):
        training.load(file, raw=True)


def test_a_disk_that_is_full_leaves_the_snapshot_before(tmp_path, monkeypatch):
    """What the library reports as its own error is one of the system's, and the part that was written is gone."""
    tree = {"x": np.ones(3, np.float32)}
    tensors.write(tmp_path / "a", tree, {})

    def full(flat, file, metadata):
        file.write_bytes(b"half")
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        tensors.write(tmp_path / "a", {"x": np.zeros(3, np.float32)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and same(tensors.read(tmp_path / "a")[0], tree)


def test_weights_that_are_not_finite_are_refused(run, tmp_path):
    found = training.load(run)
    poisoned = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), found.variables.params)
    broken = dataclasses.replace(found, variables=found.variables._replace(params=poisoned))
    export.write(broken, tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match=r"the weights \(ema .*\) of step \d+ are not finite, the first of them network/"):
        training.load(tmp_path / "broken.safetensors")


def test_what_cannot_be_exported_is_refused(run, tmp_path):
    whole = training.load(run)
    with pytest.raises(UserError, match=r"ends in .safetensors, got model.npz"):
        export.write(whole, tmp_path / "model.npz")
    with pytest.raises(UserError, match="did you mean 'float16'"):
        export.write(whole, tmp_path / "model.safetensors", dtype="float61")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export.write(whole, tmp_path / "file" / "model.safetensors")
    large = jax.tree.map(lambda x: x + 7e4, whole.variables.params)
    large = dataclasses.replace(whole, variables=whole.variables._replace(params=large))
    with pytest.raises(UserError, match="float16 cannot hold a parameter of 7"):
        export.write(large, tmp_path / "model.safetensors", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_that_are_no_whole_export_are_refused(run, tmp_path):
    file = export.write(training.load(run), tmp_path / "model.safetensors")
    content = file.read_bytes()
    for place in (content.index(b"digits"), len(content) - 3):  # in the header, and in a parameter
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(UserError, match="was altered"):
            training.load(file)
    for cut in (0, 100, len(content) - 1):
        file.write_bytes(content[:cut])
        with pytest.raises(UserError, match="cannot be read as safetensors"):
            training.load(file)
    safetensors.numpy.save_file({"x": np.zeros(3)}, file)
    with pytest.raises(UserError, match="of another origin"):
        training.load(file)
    with pytest.raises(UserError, match="is no export of a run: its metadata are step"):
        export.read(snapshots.path(run, 4))
    params, metadata = {"network": {"x": np.zeros(3, np.float32)}}, {"step": "1", "weights": "raw"}
    config, data = ((run / f"{name}.json").read_text() for name in ("config", "data"))
    tensors.write(file, params, metadata | {"config": config, "data": data})
    with pytest.raises(UserError, match="does not fit the system of its config"):
        training.load(file)


def test_names_of_power_averages():
    assert ema.power_width(ema.power_name(0.075)) == 0.075
    assert ema.power_width("0.999") is None and ema.power_width("power_high") is None

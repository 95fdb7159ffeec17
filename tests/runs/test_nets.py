"""Frozen networks that a config names, found, pinned and split; and runs that begin with the weights of another."""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import diffux.systems.ddpm
from diffux import training
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.runs import metrics, nets, start, tensors
from diffux.runs.run import Run
from diffux.systems.system import System
from diffux.systems.trainable import Variables
from diffux.types import Learned, Net
from tests import plane

pytestmark = pytest.mark.usefixtures("quick")

ROOT = pathlib.Path(__file__).parents[2]


@struct.dataclass
class Taught:
    """A net that learns what a frozen one says of noisy points."""

    network: Net
    teacher: Net

    def state(self):
        return ()

    def check(self):
        """Whatever takes points fits."""

    def loss(self, key, batch, state, train):
        x = batch["point"] + 0.1 * jax.random.normal(key, batch["point"].shape)
        told = jnp.zeros(len(x))
        return jnp.mean((self.network(x, told) - self.teacher(x, told)) ** 2), ({}, state)


def build(steps: int = 20, width: int = 16, teacher=None):
    """Diffusion of points, or a net that a frozen run or a frozen net teaches."""
    if teacher is None:
        return plane.build(steps, width)
    return Taught(Net(plane.Layers(width), Learned("network")), teacher.network if isinstance(teacher, System) else teacher)


@pytest.fixture(scope="module", autouse=True)
def system():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffux.systems.ddpm, "build", build)
        yield


def config(**sections):
    """The config of points with other values in its sections."""
    changed = copy.deepcopy(plane.CONFIG)
    changed["training"]["sample_every"] = 0
    for name, values in sections.items():
        changed[name] = changed.get(name, {}) | values
    return changed


@pytest.fixture(scope="module")
def teacher(points_run):
    """A run of six steps; not to be changed."""
    return points_run


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same with other weights."""
    return training.train(config() | {"seed": 1}, tmp_path_factory.mktemp("others") / "teacher").workdir


@pytest.fixture(scope="module")
def pupil(teacher, tmp_path_factory):
    """A run of three steps that was built on the first one; not to be changed."""
    built_on = config(nets={"teacher": str(teacher)}, training={"steps": 3})
    return training.train(built_on, tmp_path_factory.mktemp("pupils") / "pupil").workdir


def weights(workdir, **chosen):
    return training.load(workdir, **chosen).variables.params


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other))


@pytest.mark.full
def test_a_run_keeps_which_weights_it_is_built_on(teacher, pupil):
    pin = json.loads((pupil / "parts.json").read_text())["nets"]["teacher"]
    assert pin == {"path": str(teacher), "step": 6, "sha256": tensors.digest(weights(teacher))}
    loaded = training.load(pupil)
    assert same(loaded.system.teacher.weights, weights(teacher)["network"])
    assert loaded.parts["nets"] == {"teacher": pin}


def test_frozen_weights_are_in_no_checkpoint_and_do_not_change(teacher, pupil):
    """What is saved has the leaves of the trained net alone: itself, one average and the optimizer's two moments."""
    saved = json.loads((pupil / "checkpoints" / "3" / "state" / "_METADATA").read_text())["tree_metadata"]
    arrays = [name for name in saved if "kernel" in name or "bias" in name]
    assert len(arrays) == 4 * 4 and not any("teacher" in name for name in saved)
    assert set(training.load(pupil).variables.params) == {"network"}


def test_parts_that_follow_the_training_step_find_that_of_the_weights(teacher):
    for chosen in ({}, {"raw": True}, {"step": 3}):
        run = training.load(teacher, **chosen)
        assert run.variables.step == run.step == chosen.get("step", 6)


def test_a_net_that_moved_is_found_beside_the_run_or_by_its_new_path(teacher, pupil, tmp_path):
    apart, beside = tmp_path / "here" / "pupil", tmp_path / "there" / "pupil"
    elsewhere = config(nets={"teacher": str(tmp_path / "runs" / "teacher")}, training={"steps": 4})
    for workdir in (apart, beside):  # as if both had been begun with a teacher that is gone now
        shutil.copytree(pupil, workdir)
        for name in ("config.json", "parts.json"):
            (workdir / name).write_text((workdir / name).read_text().replace(str(teacher), str(tmp_path / "runs" / "teacher")))
    with pytest.raises(UserError, match=r"the net teacher is not at .*: say where it is, --net teacher=PATH"):
        training.load(apart)
    with pytest.raises(UserError, match="--net teacher=PATH"):
        training.train(elsewhere, apart)
    assert same(weights(apart, nets={"teacher": str(teacher)}), weights(pupil))
    assert training.train(elsewhere, apart, nets={"teacher": str(teacher)}).step == 4
    shutil.copytree(teacher, beside.parent / "teacher")
    assert same(weights(beside), weights(pupil))


def test_a_net_that_changed_is_refused(teacher, other, pupil, tmp_path):
    message = r"the net teacher at .* has changed since this run began with it: other weights have another hash; --net teacher=PATH"
    changed = shutil.copytree(pupil, tmp_path / "pupils" / "pupil")
    for name in ("config.json", "parts.json"):  # as if the other weights had been written over the first ones
        (changed / name).write_text((changed / name).read_text().replace(str(teacher), str(other)))
    with pytest.raises(UserError, match=message):
        training.load(changed)
    with pytest.raises(UserError, match=message):
        training.train(config(nets={"teacher": str(other)}, training={"steps": 4}), changed)
    assert same(weights(changed, nets={"teacher": str(teacher)}), weights(pupil))
    with pytest.raises(UserError, match=message):  # what is said is not passed over for what is there
        training.load(pupil, nets={"teacher": str(other)})
    # a run that was trained on since still has the step that was taken
    longer = shutil.copytree(teacher, tmp_path / "teacher")
    training.train(config(training={"steps": 7}), longer)
    assert same(training.load(pupil, nets={"teacher": str(longer)}).system.teacher.weights, weights(teacher)["network"])
    assert not same(weights(longer), weights(teacher))


def test_nets_that_cannot_be_used_are_refused_before_anything_is_written(teacher, tmp_path):
    for changes, message in (
        ({"nets": {"teacher": str(tmp_path / "nowhere")}}, "the net teacher is not at"),
        ({"nets": {"teacher": 3}}, "nets.teacher is the path of a run, an export or a folder of weights, got 3"),
        ({"nets": {"judge": str(teacher)}}, "unknown net .* 'judge'"),
        ({"nets": {"teacher": str(teacher)}, "optimizer": {"groups": [("teacher", "frozen")]}},
         "no parameter is left for the pattern 'teacher'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as raised:
            training.train(config(**changes), tmp_path / "run")
        assert "\n" not in str(raised.value) and not (tmp_path / "run" / "config.json").exists()


def test_a_net_of_another_shape_is_refused(tmp_path):
    """Of three coordinates, where the data have two."""
    wide = Net(plane.Layers(), plane.Layers().init(jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros(1))["params"])
    with pytest.raises(UserError) as raised:
        made = plan(config(), nets={"teacher": wide})
        training.loop.prepare(
            made, {"point": np.zeros((64, 2), np.float32)}, training.loop.sharding.make_mesh(devices=jax.devices()[:1])
        )
    assert "\n" not in str(raised.value) and "the weights of a net, a Layers, do not fit what it is given" in str(raised.value)


EIGHT = """
import jax, jax.numpy as jnp, numpy as np
import tests.runs.test_nets as test
from diffux.config.plan import plan
from diffux.devices import mesh as sharding
from diffux.training import program

import diffux.systems.ddpm
diffux.systems.ddpm.build = test.build
wide = test.plane.Layers(64)
weights = wide.init(jax.random.key(3), jnp.zeros((1, 2)), jnp.zeros(1))["params"]
losses, held = [], []
for fsdp, devices in ((1, 1), (8, 8)):
    mesh_of = {"fsdp": fsdp, "smallest": 64}
    made = plan(test.config(system={"width": 64}, sharding=mesh_of), nets={"teacher": test.Net(wide, weights)})
    mesh = sharding.make_mesh(made.sharding, jax.devices()[:devices])
    batch = {"point": np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)}
    prepared = program.prepare(made, batch, mesh)
    system = sharding.everywhere(prepared.system, mesh, prepared.system_places)
    state = prepared.start({"network": jax.tree.map(lambda x: 0.9 * x, weights)}, jax.random.key(1))
    frozen, trained = system.teacher.weights, state.params["network"]
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, frozen, trained)) or devices == 1
    held.append([shard.data.shape for shard in frozen["Dense_1"]["kernel"].addressable_shards])
    step = prepared.compile()
    for _ in range(3):
        state, values = step(system, state, sharding.place_batch(batch, mesh))
        losses.append(float(values["loss"]))
assert held[0] == [(3, 64)] and held[1] == [(3, 8)] * 8, held
np.testing.assert_allclose(losses[3:], losses[:3], rtol=1e-5)
print("SAME", losses)
"""


@pytest.mark.full
def test_frozen_weights_are_split_over_devices_as_trained_ones_are():
    around = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", EIGHT], env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "SAME" in done.stdout, done.stderr[-2000:]


# ---------------------------------------------------------------------------------------------- the weights of another run


def test_a_run_begins_with_the_weights_of_another(teacher, tmp_path, capsys):
    """At a rate of nothing it stays there: its weights are those, bit for bit, and its held-out loss is that of the other run."""
    still = config(training={"steps": 1, "start": str(teacher)}, optimizer={"name": "sgd", "learning_rate": 0.0})
    training.train(still, tmp_path / "run")
    assert "4 of 4 parameters begin as those of step 6 (ema 0.999) of ddpm" in capsys.readouterr().out
    assert same(weights(tmp_path / "run", raw=True), weights(teacher))
    last = lambda workdir: [row["held_out_loss"] for row in metrics.read(workdir) if "held_out_loss" in row][-1]  # noqa: E731
    assert last(tmp_path / "run") == pytest.approx(last(teacher), rel=1e-6)


def test_weights_are_taken_where_path_and_shape_agree():
    old = {"network": {"a": jnp.ones((2, 3)), "b": jnp.ones(3), "c": jnp.ones(4)}}
    run = Run(plan(config()), None, Variables(old), {}, step=5)
    new, said = {"network": {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32), "d": np.zeros(4, np.float32)}}, []
    found = start.taken(new, run, said.append)["network"]
    assert found["a"].min() == 1 and not found["b"].any() and not found["d"].any() and found["b"].shape == (2,)
    assert said == ["1 of 3 parameters begin as those of step 5 (raw) of ddpm; the others begin anew: network/b, network/d"]
    with pytest.raises(UserError, match=r"no parameter has the path and shape of one of this system; .* network/a, network/b"):
        start.taken({"network": {"a": np.zeros(2)}}, run, said.append)


def test_weights_that_are_no_run_and_no_known_family_are_refused(tmp_path):
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match="weights") as raised:
        nets.frozen(training.load, {"text": str(tmp_path / "weights")})
    assert "\n" not in str(raised.value)

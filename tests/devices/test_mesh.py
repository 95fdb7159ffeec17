"""The same run on one device and on eight simulated ones, with parameters whole, split, and split by channels."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from diffux import training
from diffux.devices import mesh as sharding
from diffux.devices.mesh import Sharding
from diffux.errors import UserError
from diffux.evaluation import likelihood
from diffux.networks.unet import UNet
from diffux.runs import metrics
from diffux.sampling import files

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parents[2]

# Prints, for every mesh: the losses of 20 steps, bytes of parameters, averages and optimizer on the fullest device, and the
# compiled step's collectives.
STEPS = """
import json, re
import jax
from diffux.config.plan import plan
from diffux.devices import mesh as sharding
from diffux.training import program
from diffux.systems.shapes import parameters

def collectives(text):
    found = re.findall(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\\(", text)
    return [[kind, [list(map(int, dims.split(","))) if dims else [] for dims in re.findall(r"\\w\\[([\\d,]*)\\]", shapes)]]
            for shapes, kind in found]

for section, devices in json.loads(MESHES):
    run = plan(json.loads(CONFIG) | {"sharding": section | {"smallest": 0}})
    mesh = sharding.make_mesh(run.sharding, jax.devices()[:devices])
    batches = run.data.batches(run.data.sources()[0], run.seed, 0)
    batch = next(batches)
    prepared = program.prepare(run, batch, mesh)
    step = prepared.compile()
    params = parameters(run.seed, run.system, batch).params
    system = sharding.everywhere(prepared.system, mesh, prepared.system_places)
    state, losses = prepared.start(params, jax.random.key(1)), []
    for _ in range(20):
        state, values = step(system, state, sharding.place_batch(batch, mesh))
        losses.append(float(values["loss"]))
        batch = next(batches)
    bytes_ = {
        name: max(sum(shard.data.nbytes for leaf in jax.tree.leaves(getattr(state, name)) for shard in leaf.addressable_shards
                      if shard.device == device) for device in mesh.devices.flat)
        for name in ("params", "ema", "opt_state")
    }
    print("MESH", json.dumps([losses, bytes_, collectives(step.as_text())]), flush=True)
"""
CONFIG = {
    "system": {"name": "ddpm", "steps": 100, "channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "classes": 10},
    "data": {"name": "digits", "batch_size": 24, "dequantize": True},  # no layer has 24 of anything
    "optimizer": {"learning_rate": 2e-3},
}
MESHES = {
    "one": ({}, 1),
    "data": ({"data": 8}, 8),
    "fsdp": ({"fsdp": 8}, 8),
    "all": ({"data": 2, "fsdp": 2, "tensor": 2}, 8),
    "zero": ({"optimizer": "sharded"}, 8),
}


def simulated(program, *arguments, devices=8):
    """What a program prints on `devices` simulated devices."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def meshes():
    """{mesh: (losses, bytes, collectives)}."""
    said = simulated(f"CONFIG = {json.dumps(CONFIG)!r}\nMESHES = {json.dumps(list(MESHES.values()))!r}\n{STEPS}")
    rows = [json.loads(line[5:]) for line in said.splitlines() if line.startswith("MESH ")]
    return dict(zip(MESHES, rows, strict=True))


@pytest.mark.full
@pytest.mark.parametrize("mesh", list(MESHES)[1:])
def test_eight_devices_give_the_losses_of_one(meshes, mesh):
    losses, reference = meshes[mesh][0], meshes["one"][0]
    assert len(losses) == 20 and losses[-1] < losses[0]
    np.testing.assert_allclose(losses, reference, atol=1e-5)


@pytest.mark.full
def test_parameters_and_what_the_optimizer_keeps_are_where_the_mesh_says(meshes):
    one = meshes["one"][1]
    assert one["ema"] == one["params"] and one["opt_state"] > 2 * one["params"]  # Adam's two moments and its count
    assert meshes["data"][1] == one
    # Every layer has an axis that 8 divides; the table of labels, 3 % of the network, stays whole.
    for name, whole in one.items():
        assert meshes["fsdp"][1][name] < 0.17 * whole
    assert meshes["zero"][1]["params"] == one["params"]
    for name in ("ema", "opt_state"):
        assert meshes["zero"][1][name] < 0.17 * one[name]
    # fsdp=2 halves everything, and tensor=2 halves that again inside the blocks
    assert all(0.25 * whole < meshes["all"][1][name] < 0.4 * whole for name, whole in one.items())


@pytest.mark.full
def test_what_crosses_devices(meshes):
    """Data-parallel training sums gradients and nothing else; with split parameters no array of the whole batch travels."""
    kinds = {mesh: {kind for kind, _ in found} for mesh, (_, _, found) in meshes.items()}
    assert kinds["one"] == set() and kinds["data"] == {"all-reduce"}
    numbers = lambda found: sum(int(np.prod(shape)) for _, shapes in found for shape in shapes)  # noqa: E731
    parameters = meshes["one"][1]["params"] // 4
    assert parameters <= numbers(meshes["data"][2]) <= 1.05 * parameters
    assert "all-gather" in kinds["fsdp"]
    for kind, shapes in meshes["fsdp"][2]:
        if kind in ("all-gather", "all-to-all"):
            assert all(shape[:1] != [24] for shape in shapes), shapes


def test_rules_say_where_a_layer_goes():
    mesh = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, np.float32)  # noqa: E731
    layer = lambda inputs, outputs: {"kernel": shape(3, 3, inputs, outputs), "bias": shape(outputs)}  # noqa: E731
    block = {"conv_0": layer(8, 16), "conv_1": layer(16, 16)}
    tree = {"params": {"network": {"block": block, "odd": shape(3, 5)}, "process": {"beta": shape(8)}}, "step": shape()}

    def spec(**section):
        of_unet = {"network": UNet().splits}
        return jax.tree.map(lambda place: place.spec, sharding.resolve(tree, mesh, Sharding(**section), splits=of_unet))

    specs = spec()
    found = specs["params"]["network"]["block"]
    assert found["conv_0"] == {"kernel": PartitionSpec(None, None, "fsdp", "tensor"), "bias": PartitionSpec("tensor")}
    assert found["conv_1"] == {"kernel": PartitionSpec(None, None, "tensor", "fsdp"), "bias": PartitionSpec("fsdp")}
    assert specs["params"]["network"]["odd"] == specs["params"]["process"]["beta"] == specs["step"] == PartitionSpec()
    mine = spec(rules=[["conv_0/kernel", "replicated"], ["conv_1/kernel", "split"]])["params"]["network"]["block"]
    assert mine["conv_0"] == {"kernel": PartitionSpec(), "bias": PartitionSpec("tensor")}
    assert mine["conv_1"]["kernel"] == PartitionSpec(None, None, "fsdp")
    few = spec(smallest=1 + 3 * 3 * 8 * 16)["params"]["network"]["block"]
    assert few["conv_0"]["kernel"] == PartitionSpec(None, None, None, "tensor") and few["conv_1"] == found["conv_1"] | {
        "bias": PartitionSpec()
    }
    tree = {"opt_state": tree["params"], "params": tree["params"]}
    zero = spec(optimizer="sharded")
    assert zero["opt_state"]["network"]["block"]["conv_1"]["kernel"] == PartitionSpec(None, None, "tensor", ("data", "fsdp"))
    assert zero["params"]["network"]["block"]["conv_1"]["kernel"] == PartitionSpec(None, None, "tensor", "fsdp")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"data": 2}, "sharding data=2, fsdp=1, tensor=1 does not make up the 1 device there is"),
        ({"data": 1, "tensor": 2}, "does not make up the 1 device"),
        ({"data": -1, "fsdp": -1}, "one may be -1"),
    ],
)
def test_a_mesh_that_the_devices_do_not_make_up_is_refused(section, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(Sharding(**section), jax.devices()[:1])


RUN = """
import sys
import jax
import diffux.systems.ddpm
from diffux import training
from tests.small import SMALL, Tiny

diffux.systems.ddpm.UNet = Tiny
for steps, section in ((6, {"fsdp": 4}), (8, {"data": 8}), (10, {"data": 2, "fsdp": 2, "tensor": 2})):
    training.train(SMALL | {"training": SMALL["training"] | {"steps": steps}, "sharding": section | {"smallest": 0}}, sys.argv[1])

from pathlib import Path
from diffux.evaluation import likelihood
from diffux.runs.run import Run
from diffux.sampling import files

generate, drawn = Run.generate, []
Run.generate = lambda *args, **kwargs: drawn.append(generate(*args, **kwargs)) or drawn[-1]
files.sample(files.models({"model": sys.argv[1]}, solver="ddim", steps=2), [Path(sys.argv[1]) / "eight.npz"], n=5)
run = training.load(sys.argv[1])
assert dict(run.mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
assert not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(run.variables.params))
x = drawn[0].x  # five samples and three more, two on each of four devices, twice for the axis that does not split them
assert x.shape == (8, 8, 8, 1) and {shard.data.shape for shard in x.addressable_shards} == {(2, 8, 8, 1)}
print("BITS", likelihood.held_out(run, n=5, rtol=1e-3, atol=1e-3)["rows"]["model"]["bits"])
"""


@pytest.mark.slow
def test_a_run_continues_on_another_mesh(tmp_path, config):
    """Split parameters, then whole ones, then another split, then one device: the losses are those of one device throughout."""
    said = simulated(RUN, tmp_path / "many")
    assert "continuing the run" in said and "at step 6" in said and "at step 8" in said and "done: 10 steps" in said
    for name in ("many", "one"):
        for steps in (6, 8, 10, 12)[0 if name == "one" else 3 :]:
            training.train(config(**{"training.steps": steps}), tmp_path / name)
    many, one = (
        [row[name] for name in ("loss", "held_out_loss") for row in metrics.read(tmp_path / run) if name in row]
        for run in ("many", "one")
    )
    np.testing.assert_allclose(many, one, rtol=1e-5)
    samples = files.sample(files.models({"model": tmp_path / "many"}, solver="ddim", steps=2, step=10), [], n=5)
    np.testing.assert_allclose(np.load(tmp_path / "many" / "eight.npz")["images"], samples, atol=1e-5)
    bits = likelihood.held_out(training.load(tmp_path / "many", step=10), n=5, rtol=1e-3, atol=1e-3)["rows"]["model"]["bits"]
    assert float(re.search(r"^BITS (.*)", said, re.M)[1]) == pytest.approx(bits, rel=1e-5)


PROCESS = """
import sys
import jax

jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
import diffux.systems.ddpm
from diffux import training
from diffux.runs import metrics
from tests.small import SMALL, Tiny

diffux.systems.ddpm.UNet = Tiny
for steps in (6, 8):
    training.train(SMALL | {"training": SMALL["training"] | {"steps": steps}, "sharding": {"fsdp": 2}}, sys.argv[3])
rows = metrics.read(sys.argv[3])
print("LOSSES", *[row[name] for name in ("loss", "held_out_loss") for row in rows if name in row])
"""


@pytest.mark.slow
def test_two_processes_train_and_continue_together(tmp_path, config):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, port, str(index), str(tmp_path / "two")],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in (0, 1)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "done: 8 steps" in said[0][0] and "training" not in said[1][0]
    training.train(config(), tmp_path / "one")
    training.train(config(**{"training.steps": 8}), tmp_path / "one")
    rows = metrics.read(tmp_path / "one")
    one = [row[name] for name in ("loss", "held_out_loss") for row in rows if name in row]
    two = next(line for line in said[0][0].splitlines() if line.startswith("LOSSES")).split()[1:]
    assert [float(x) for x in two] == pytest.approx(one, rel=1e-4)

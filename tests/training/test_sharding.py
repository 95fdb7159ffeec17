"""The same run on one device and on eight simulated ones."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from diffux import training
from diffux.training import metrics

PROGRAM = """
import sys
import jax, numpy as np
import diffux.systems.ddpm
from diffux import training
from diffux.training import metrics, sharding
from tests.training.conftest import SMALL, Tiny

diffux.systems.ddpm.UNet = Tiny
make_mesh = sharding.make_mesh
mesh = make_mesh(4)
tree = {"params": {"kernel": np.zeros((3, 3, 1, 4)), "bias": np.zeros(1)}, "step": np.zeros(())}
places = sharding.resolve(tree, mesh, sharding.FSDP)
assert places["params"]["kernel"].spec == jax.sharding.PartitionSpec(None, None, None, "fsdp"), places
assert places["params"]["bias"].spec == places["step"].spec == jax.sharding.PartitionSpec()

for devices, fsdp in ((1, 1), (8, 1), (8, 4)):
    sharding.make_mesh = lambda fsdp: make_mesh(fsdp, jax.devices()[:devices])
    workdir = f"{sys.argv[1]}/{devices}_{fsdp}"
    training.train(SMALL | {"sharding": {"fsdp": fsdp}}, workdir)
    rows = metrics.read(workdir)
    print("LOSSES", *[row[name] for name in ("loss", "held_out_loss") for row in rows if name in row])
training.train(SMALL | {"training": SMALL["training"] | {"steps": 8}}, workdir)
"""


def test_eight_devices_give_the_losses_of_one(tmp_path):
    """Whole and split parameters; and a run of split parameters continues with whole ones."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, whole, split = ([float(x) for x in line.split()[1:]] for line in done.stdout.splitlines() if line[:6] == "LOSSES")
    assert len(one) == 6 and whole == pytest.approx(one, rel=1e-4) and split == pytest.approx(one, rel=1e-4)
    assert "at step 6" in done.stdout and "done: 8 steps" in done.stdout


PROCESS = """
import sys
import jax

jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
import diffux.systems.ddpm
from diffux import training
from diffux.training import metrics
from tests.training.conftest import SMALL, Tiny

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

"""What `diffux compile` says of steps whose sizes can be counted."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from diffux import cost
from diffux.config import parts
from diffux.errors import DoesNotFit, UserError
from diffux.systems.shapes import shapes_of

SWISS_ROLL = "diffusion2015_swiss_roll"
SYSTEM = {"name": "diffusion2015", "data": "point", "kind": "gaussian", "codec": "standardized", "steps": 5, "network": "rbf",
          "units": 8}  # fmt: skip
CONFIG = {"system": SYSTEM, "data": {"name": "swiss_roll", "batch_size": 64}}


@pytest.mark.full
def test_the_step_on_eight_simulated_devices(compiled):
    status, printed, errors, report = compiled(SWISS_ROLL, "--topology", "cpu:8", "--memory", "1GB")
    assert status == 0, errors
    system = parts.system(SYSTEM | {"steps": 40, "units": 64})
    shapes = shapes_of(0, system, {"point": np.zeros((1, 2), np.float32)}).params
    numbers = sum(x.size for x in jax.tree.leaves(shapes))
    assert report["parameters"] == numbers
    memory = report["memory"]
    assert memory["parameters"] == memory["averages"] == 4 * numbers
    assert memory["optimizer"] == 2 * 4 * numbers + 8  # two moments; Adam and the schedule count steps
    assert memory["batch"] == 512 // 8 * 2 * 4
    assert report["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert report["device"]["memory"] == 10**9
    # Gradients are added up over devices, and beside them parts of those of the learned betas.
    assert {one["kind"] for one in report["collectives"]} == {"all-reduce"}
    assert 4 * numbers <= sum(one["bytes"] for one in report["collectives"]) <= 1.1 * 4 * numbers
    assert not report["activations"]
    assert "unknown" in printed  # the speed of a CPU is not published


MATMUL = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from diffux.cost import collectives

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
step = jax.jit(jax.grad(lambda w, x: jnp.sum((x @ w) ** 2)), in_shardings=(whole, split), out_shardings=whole)
text = step.lower(jnp.zeros((6, 5)), jnp.zeros((16, 6))).compile().as_text()
print("FOUND", *[(one.kind, one.bytes, one.group) for one in collectives(text)])
"""


@pytest.mark.full
def test_one_matrix_on_eight_devices_has_one_all_reduce_of_its_gradient():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", MATMUL], env=environment, capture_output=True, text=True, check=True)
    assert f"FOUND ('all-reduce', {6 * 5 * 4}, 8)" in done.stdout.splitlines()


@pytest.mark.full
def test_a_step_that_does_not_fit_is_refused_with_its_numbers():
    report = cost.measure(CONFIG, "cpu:1", memory=1000)
    assert not report.fits
    assert "DOES NOT FIT" in str(report)
    with pytest.raises(DoesNotFit, match=r"needs [\d.]+ \w+ of 1000 B a device \(parameters .* a smaller data.batch_size"):
        cost.refuse(report)
    assert DoesNotFit.status == 5
    # XLA counts what is computed between the contractions as well, and on points that is most.
    assert 0 < report.flops < report.flops_xla


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--topology", "v7:2x2"], "unknown topology 'v7:2x2'; .*v5e:4x4"),
        (["--topology", "cpu:0"], "unknown topology 'cpu:0'; did you mean 'cpu:8'"),
        (["--memory", "lots"], "size in bytes .* 16GB.* got 'lots'"),
        (["--topology", "cpu:1", "--config.sharding.fsdp=2"], "fsdp=2.* does not make up the 1 device"),
        (["--config.data.name=cifr10"], "unknown data set 'cifr10'; did you mean cifar10"),
        (["--json", "/nowhere/at/all.json"], "--json /nowhere/at/all.json is in no directory"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_a_sentence(flags, said, command, capsys):
    assert command("compile", "--config", SWISS_ROLL, *flags) == 2
    assert_sentence(capsys, said)


def test_flags_of_a_report_are_not_those_of_training(command, capsys, tmp_path):
    assert command("train", "--config", SWISS_ROLL, "--topology", "cpu:8", "--workdir", str(tmp_path)) == 2
    assert_sentence(capsys, "unknown flag '--topology'")
    assert command("train", "--config", SWISS_ROLL) == 2
    assert_sentence(capsys, "--workdir")
    assert command("compile", "--config", SWISS_ROLL, "--workdir", str(tmp_path)) == 2
    assert_sentence(capsys, "unknown flag '--workdir'")


def assert_sentence(capsys, said):
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert re.search(said, printed), printed


def test_bytes():
    assert cost.parse_bytes("16GB") == 16 * 10**9
    assert cost.parse_bytes("15.75 GiB") == 15.75 * 2**30
    for wrong in ("", "16XB", "iB", "-1GB", "0", "9" * 400):
        with pytest.raises(UserError, match="size in bytes"):
            cost.parse_bytes(wrong)

"""Steps compiled for TPUs that are not there, with libtpu."""

import importlib.util

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu"),
]
# Small, with what the large ones have: two levels, so halving and doubling of the sides, and attention.
SMALL = ["--topology", "v5e:4x4", "--config.data.name=patches/16", "--config.data.batch_size=128", "--config.system.channels=64",
         "--config.system.multipliers=(1,2)", "--config.system.blocks=1", "--config.system.attention=(8,)"]  # fmt: skip
SPLIT = ["--config.sharding.fsdp=16"]
DATA = "ddpm_cifar10"


@pytest.fixture(scope="module")
def reports(compiled):
    found = {}

    def report(*arguments):
        if arguments not in found:
            status, _, errors, found[arguments] = compiled(DATA, *SMALL, *arguments)
            assert status == 0, errors
        return found[arguments]

    return report


def test_whole_parameters_are_only_reduced(reports):
    report = reports()
    assert {one["kind"] for one in report["collectives"]} == {"all-reduce"}
    gradients = 4 * report["parameters"]
    assert gradients <= sum(one["bytes"] for one in report["collectives"]) <= 1.05 * gradients
    assert {dtype for one in report["collectives"] for dtype, _ in one["shapes"]} == {"f32"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_split_parameters(reports, dtype):
    """No sample leaves its device, gradients are scattered as they are reduced, and a device keeps its share alone."""
    report = reports(*SPLIT, f"--config.compute.dtype={dtype}")
    assert report["activations"] == []
    sent = {kind: sum(one["sent"] for one in report["collectives"] if one["kind"] == kind) for kind in
            ("all-gather", "all-to-all", "reduce-scatter", "all-reduce")}  # fmt: skip
    assert sent["all-to-all"] == 0
    assert sent["reduce-scatter"] > 2 * sent["all-reduce"]
    assert report["memory"]["parameters"] < 4 * report["parameters"] / 8
    assert report["memory"]["peak"] < reports()["memory"]["peak"] / 2


@pytest.mark.parametrize(("flags", "types"), [([], {"f32"}), (["--config.sharding.gradients=bfloat16"], {"bf16"})])
def test_the_type_in_which_gradients_cross(reports, flags, types):
    report = reports(*SPLIT, "--config.compute.dtype=bfloat16", *flags)
    scattered = [one for one in report["collectives"] if one["kind"] == "reduce-scatter"]
    assert {dtype for one in scattered for dtype, dims in one["shapes"] if len(dims) > 1} == types


def test_a_step_too_large_for_its_chip_is_refused(compiled):
    """The compiler's own refusal, in our words."""
    batch = f"--config.data.batch_size={2**28}"
    status, _, errors, report = compiled("diffusion2015_swiss_roll", "--topology", "v5e:1x1", batch)
    assert status == 5
    assert report is None
    assert errors.startswith("error: the training step needs ") and " of 15.75 GiB a device" in errors
    assert errors.count("\n") == 1

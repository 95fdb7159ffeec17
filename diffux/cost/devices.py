"""What devices can do at most, and topologies of devices that are not there."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re

import jax

from diffux.errors import UserError, one_sentence, unknown

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """The published peaks of one device; None where none is published.

    `memory` is what a program may fill, in bytes. Rates are a second: `flops` of the matrix units by the type of their factors,
    bytes `bandwidth` of the memory, and bytes `links` that all links to other devices carry one way.
    """

    name: str
    memory: int | None = None
    bf16: float | None = None
    fp32: float | None = None
    bandwidth: float | None = None
    links: float | None = None
    source: str = ""

    def flops(self, dtype: str) -> float | None:
        return self.bf16 if dtype == "bfloat16" else self.fp32


_TPU = "Cloud TPU documentation, system architecture of {}; memory: the limit that libtpu states"
_GPU = "NVIDIA {} data sheet, SXM; float32 as TF32, JAX's default precision"

# TPUs multiply float32 in one bfloat16 pass at JAX's default precision, so that it has the same peak. The documentation counts
# links both ways, half of which is one way.
DEVICES = {
    "TPU v4": Device("TPU v4", int(30.75 * GIB), 275e12, 275e12, 1228e9, 300e9, _TPU.format("v4 (links: Jouppi et al., 2023)")),
    "TPU v5 lite": Device("TPU v5e", int(15.75 * GIB), 197e12, 197e12, 819e9, 200e9, _TPU.format("v5e")),
    "TPU v5": Device("TPU v5p", int(95.73 * GIB), 459e12, 459e12, 2765e9, 600e9, _TPU.format("v5p")),
    "TPU v6 lite": Device("TPU v6e", int(31.24 * GIB), 918e12, 918e12, 1638e9, 400e9, _TPU.format("v6e")),
    "NVIDIA A100-SXM4-40GB": Device("A100 40 GB", int(40e9), 312e12, 156e12, 1555e9, 300e9, _GPU.format("A100")),
    "NVIDIA A100-SXM4-80GB": Device("A100 80 GB", int(80e9), 312e12, 156e12, 2039e9, 300e9, _GPU.format("A100")),
    "NVIDIA H100 80GB HBM3": Device("H100", int(80e9), 989e12, 494e12, 3350e9, 450e9, _GPU.format("H100")),
    "NVIDIA H200": Device("H200", int(141e9), 989e12, 494e12, 4800e9, 450e9, _GPU.format("H200")),
}
"""By `jax.Device.device_kind`."""

_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
GENERATIONS = {"v4": _CUBES, "v5e": _SQUARES, "v5p": _CUBES, "v6e": _SQUARES}
"""The TPU generations of `topology`, and shapes of slices that are offered of each."""


def known(device: jax.Device, memory: int | None = None) -> Device:
    """What is published of a device; of another one, its name and the `memory` that it is said to have."""
    found = DEVICES.get(device.device_kind, Device(device.device_kind, source="no published peaks known"))
    return found if memory is None else dataclasses.replace(found, memory=memory)


def topology(name: str) -> list:
    """The devices of a topology: "v5e:4x4" is a slice of TPUs that need not be there, "cpu:8" are simulated on this CPU.

    Neither needs an accelerator, so JAX is told to begin on the CPU. Raises UserError for a name that is none, for TPUs without
    libtpu, and where JAX has already begun and has fewer devices.
    """
    kind, _, shape = name.partition(":")
    jax.config.update("jax_platforms", "cpu")
    if kind == "cpu" and re.fullmatch(r"[1-9]\d*", shape):
        with contextlib.suppress(RuntimeError):  # JAX has begun: with as many as it has
            jax.config.update("jax_num_cpu_devices", int(shape))
        devices = jax.devices("cpu")
        if len(devices) < int(shape):
            raise UserError(f"{name} needs {shape} simulated devices, and JAX has begun with {len(devices)}: in a new process, or "
                            f"with XLA_FLAGS=--xla_force_host_platform_device_count={shape}, it has them")  # fmt: skip
        return devices[: int(shape)]
    if kind not in GENERATIONS:
        raise unknown("topology", name, [*(f"{kind}:{shapes[3]}" for kind, shapes in GENERATIONS.items()), "cpu:8"])
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"topology {name} needs the compiler for TPUs: pip install libtpu, which the extra [tpu] does as well")
    from jax.experimental import topologies

    # The compiler need not ask where it runs, nor be the only one of its kind here.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_WORKER_HOSTNAMES": "localhost",
                   "TPU_ACCELERATOR_TYPE": f"{kind}-8"}  # fmt: skip
    # Two cores of a v4 chip are one device in JAX.
    options = {"chip_config_name": "megacore"} if kind == "v4" else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except Exception as error:  # of libtpu, whatever it raises
        fits = ", ".join(f"{kind}:{shape}" for shape in GENERATIONS[kind])
        raise UserError(f"{name} is no topology of TPUs ({one_sentence(error)[:150]}); such as {fits}") from error

"""Which processes make up this run: from flags, JAX's variables, or the launcher around the process."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Callable

from diffux.errors import Lost, UserError, one_sentence

# What a launcher's variable, or a flag, may say: the value and where it stood.
_FLAGS = {"coordinator": "--coordinator", "processes": "--processes", "process": "--process"}
_VARIABLES = {"coordinator": "JAX_COORDINATOR_ADDRESS", "processes": "JAX_NUM_PROCESSES", "process": "JAX_PROCESS_ID"}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Several processes of one run, as this one of them sees it.

    coordinator: HOST:PORT on which process 0 listens. process: this one's number, of 0 to processes - 1.
    devices: which of the host's accelerators are this process's, or None for all.
    hosts: each process's host where the launcher lists them, or empty. found: by what, in words.
    """

    coordinator: str
    processes: int
    process: int
    devices: tuple[int, ...] | None
    hosts: tuple[str, ...]
    found: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


@dataclasses.dataclass(frozen=True)
class _Launcher:
    """What started this process, where it counts the processes; `coordinator(seconds)` may look a name up."""

    name: str
    processes: int
    process: int
    coordinator: Callable[[float], str]
    local: int | None = None  # this process's number on its host, where it shares it with others
    hosts: tuple[str, ...] = ()


def find(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    required: bool = False,
    timeout: float = 300,
) -> Cluster | None:
    """The run's processes, or None where this process is alone; nothing is asked of a network unless a launcher is there.

    An argument counts before its variable (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID), and what neither
    says comes from the launcher: Open MPI, a SLURM step, Cloud TPU, and with `required` a Kubernetes Job, as JAX knows them.
    `processes=1` is alone whatever is around.

    Raises UserError for settings that are half given, impossible or in contradiction, and where `required` and none was
    found; Lost where the launcher's coordinator has no address after `timeout` seconds.
    """
    given = _given(coordinator, processes, process)
    said = {key: value for key, (value, _) in given.items()}
    if said.get("processes") == 1 and said.get("process", 0) == 0:
        return _alone(required, f"{given['processes'][1]} is 1")
    # An indexed Job may as well be many runs of one process: only who asks for several is told of it.
    partial = len(given) < 3
    launcher = _launcher(tpu=partial, kubernetes=partial and (bool(given) or required))
    if launcher is None and not given:
        return _alone(required, "there are no --coordinator, --processes and --process, no JAX_COORDINATOR_ADDRESS, and no "
                                "SLURM step, Open MPI or Cloud TPU around this process")  # fmt: skip
    if launcher is not None and launcher.processes == 1:
        if not given:
            return _alone(required, f"{launcher.name} counts one process")
        launcher = None
    if launcher is not None:
        if said.get("processes", launcher.processes) != launcher.processes:
            value, source = given["processes"]
            raise UserError(f"{source} is {value} and {launcher.name} counts {launcher.processes} processes: leave {source} out")
        for key in ("processes", "process"):
            said.setdefault(key, getattr(launcher, key))
    _check(said, given, launcher)
    if "coordinator" not in said:
        try:
            said["coordinator"] = launcher.coordinator(timeout)
        except UserError:
            raise
        except Exception as error:  # whatever JAX's detection and the name service raise
            why = one_sentence(error)[:200]
            raise Lost(f"{launcher.name} names no process 0 that can be found ({why}): give --coordinator HOST:PORT") from error
    found = " and ".join(dict.fromkeys([source for _, source in given.values()])) or launcher.name
    return Cluster(**said, devices=_devices(launcher), hosts=launcher.hosts if launcher else (), found=found)


def _alone(required: bool, why: str) -> None:
    if required:
        raise UserError(f"--distributed wants several processes and this is one: {why}")


def _given(coordinator, processes, process) -> dict[str, tuple]:
    """{"process": (1, "--process"), ...} of the flags and of JAX's variables."""
    given = {}
    for key, flag in (("coordinator", coordinator), ("processes", processes), ("process", process)):
        variable = os.environ.get(_VARIABLES[key]) or None
        if variable is not None and key != "coordinator":
            try:
                variable = int(variable)
            except ValueError as error:
                raise UserError(f"{_VARIABLES[key]} is a whole number, got {variable!r}") from error
        if None not in (flag, variable) and flag != variable:
            message = f"{_FLAGS[key]} is {flag} and {_VARIABLES[key]} is {variable}: take one of them away"
            raise UserError(message)
        if flag is not None or variable is not None:
            given[key] = (flag, _FLAGS[key]) if flag is not None else (variable, _VARIABLES[key])
    return given


def _check(said, given, launcher) -> None:
    names = ", ".join(source for _, source in given.values())
    missing = [_FLAGS[key] for key in _FLAGS if key not in said and not (key == "coordinator" and launcher)]
    if missing:
        raise UserError(f"of several processes each needs to know three things, and {names} came without {' and '.join(missing)}")
    if said["processes"] < 1:
        raise UserError(f"--processes counts all processes and is at least 1, got {said['processes']}")
    if not 0 <= said["process"] < said["processes"]:
        raise UserError(f"--process is 0 to {said['processes'] - 1} of {said['processes']} processes, got {said['process']}")
    if "coordinator" in said:
        host, _, port = said["coordinator"].rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            source = given["coordinator"][1]
            raise UserError(f"{source} is HOST:PORT of process 0, as 10.0.0.1:8476, got {said['coordinator']!r}")


def _devices(launcher: _Launcher | None) -> tuple[int, ...] | None:
    """One accelerator a process where a launcher started several on a host, unless it has shown each only one."""
    if launcher is None or launcher.local is None:
        return None
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return None if len(shown) == 1 else (launcher.local,)


def _launcher(*, tpu: bool, kubernetes: bool) -> _Launcher | None:
    """The launcher around this process; `tpu` and `kubernetes`: whether those, which may ask a server, count."""
    env = os.environ
    if "OMPI_COMM_WORLD_SIZE" in env and "OMPI_COMM_WORLD_RANK" in env:
        size, rank = int(env["OMPI_COMM_WORLD_SIZE"]), int(env["OMPI_COMM_WORLD_RANK"])
        shares = int(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1)) > 1
        return _Launcher("Open MPI", size, rank, _open_mpi_coordinator, int(env["OMPI_COMM_WORLD_LOCAL_RANK"]) if shares else None)
    from jax._src import clusters  # what JAX itself detects; private, so a missing name is a launcher less

    slurm = getattr(clusters, "SlurmCluster", None)
    if slurm is not None and slurm.is_env_present():
        hosts = _expanded(env["SLURM_STEP_NODELIST"])
        count, process = slurm.get_process_count(), slurm.get_process_id()
        if len(hosts) == count:
            return _Launcher("SLURM", count, process, _coordinator(slurm), hosts=hosts)
        return _Launcher("SLURM", count, process, _coordinator(slurm), slurm.get_local_process_id())
    for kind in ("GkeTpuCluster", "GceTpuCluster") if tpu else ():
        slices = getattr(clusters, kind, None)
        if slices is not None and slices.is_env_present():
            count, process = slices.get_process_count(), slices.get_process_id()
            hosts = tuple(slices._get_worker_list_in_slice())
            return _Launcher("Cloud TPU", count, process, _coordinator(slices), hosts=hosts if len(hosts) == count else ())
    jobs = getattr(clusters, "K8sCluster", None)
    if kubernetes and jobs is not None and "JOB_COMPLETION_INDEX" in env:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the kubernetes package is missing
            if not jobs.is_env_present():
                return None
        return _Launcher("Kubernetes", jobs.get_process_count(), jobs.get_process_id(), _coordinator(jobs))
    return None


def _coordinator(cluster) -> Callable[[float], str]:
    port = os.environ.get("JAX_COORDINATOR_PORT")
    return lambda timeout: cluster.get_coordinator_address(timeout_secs=int(timeout), override_coordinator_port=port)


def _open_mpi_coordinator(timeout: float) -> str:
    from jax._src import clusters

    if "OMPI_MCA_orte_hnp_uri" not in os.environ:  # of Open MPI before 5; later ones tell a process no address
        raise UserError("Open MPI 5 does not say where process 0 is: give --coordinator HOST:PORT, HOST being that of rank 0")
    return _coordinator(clusters.OmpiCluster)(timeout)


def _expanded(nodes: str) -> tuple[str, ...]:
    """The hosts of SLURM's list "a[01-03,7],b" in order: a01, a02, a03, a7, b."""
    hosts = []
    for prefix, ranges, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)", nodes):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last) + 1) if last else [first]
            hosts += [f"{prefix}{str(number).zfill(len(first))}{suffix}" for number in numbers]
    return tuple(hosts)

"""How processes find each other, meet, wait, and end together; without training anything."""

import os
import signal
import socket
import threading

import jax
import numpy as np
import pytest
from jax._src.clusters import cloud_tpu_cluster

from diffux.config.plan import plan
from diffux.devices import cluster, roll_call
from diffux.devices import together as distributed
from diffux.devices.cluster import Cluster
from diffux.errors import Lost, UserError
from diffux.runs import folder
from diffux.training.signals import Stop
from tests.devices.processes import ends, environment, port, start

SLURM = {"SLURM_JOB_ID": "4099", "SLURM_STEP_NODELIST": "gpu[08-10]"}
SLURM |= {"SLURM_NTASKS": "3", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
ORTE = {"OMPI_MCA_orte_hnp_uri": f"{7 * 2**12}.0;tcp://10.96.0.1,10.148.0.1:34911", "OMPI_COMM_WORLD_SIZE": "4"}
ORTE |= {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
JAX = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:99", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
GKE = {"TPU_WORKER_HOSTNAMES": "127.0.0.1,tpu-1", "TPU_WORKER_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.1"}
GKE |= {"MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0"}
EPHEMERAL = 65535 - 2**12 + 1  # where JAX counts a job's port from


@pytest.fixture
def around(monkeypatch):
    """Set the whole environment to what a launcher says."""

    def setting(variables):
        for name in set(os.environ) - set(environment()):
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", "TPU_WORKER_ID" in variables)

    return setting


FOUND = {
    "flags": ({}, ("a:1", 2, 0), ("a:1", 2, 0, None, ())),
    "JAX's variables": (JAX, (), ("10.0.0.1:99", 2, 1, None, ())),
    "a flag and JAX's variables": (JAX | {"JAX_PROCESS_ID": ""}, (None, None, 0), ("10.0.0.1:99", 2, 0, None, ())),
    "SLURM, a task a node": (SLURM, (), (f"gpu08:{EPHEMERAL + 3}", 3, 2, None, ("gpu08", "gpu09", "gpu10"))),
    "SLURM, several tasks a node": (
        SLURM | {"SLURM_NTASKS": "24", "SLURM_PROCID": "23", "SLURM_LOCALID": "7"},
        (),
        (f"gpu08:{EPHEMERAL + 3}", 24, 23, (7,), ()),
    ),
    "SLURM that shows each task one GPU": (
        SLURM | {"SLURM_NTASKS": "24", "SLURM_LOCALID": "7", "CUDA_VISIBLE_DEVICES": "7"},
        (),
        (f"gpu08:{EPHEMERAL + 3}", 24, 2, None, ()),
    ),
    "SLURM and another coordinator": (SLURM, ("h:5",), ("h:5", 3, 2, None, ("gpu08", "gpu09", "gpu10"))),
    "Open MPI 4": (ORTE, (), (f"10.96.0.1:{EPHEMERAL + 7}", 4, 3, (1,), ())),
    "Open MPI 5": ({k: v for k, v in ORTE.items() if "orte" not in k}, ("h:5",), ("h:5", 4, 3, (1,), ())),
    "GKE": (GKE, (), ("127.0.0.1:8482", 2, 1, None, ("127.0.0.1", "tpu-1"))),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_process_finds_the_run_it_belongs_to(around, case):
    variables, flags, wanted = FOUND[case]
    around(variables)
    found = cluster.find(*flags)
    assert (found.coordinator, found.processes, found.process, found.devices, found.hosts) == wanted


ALONE = {
    "nothing": ({}, ()),
    "one process by flag within SLURM": (SLURM, (None, 1)),
    "a SLURM step of one task": (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ()),
    "a SLURM batch script outside of srun": ({k: v for k, v in SLURM.items() if "STEP" not in k}, ()),
    "an indexed Kubernetes Job that nobody called one run": ({"JOB_COMPLETION_INDEX": "3", "KUBERNETES_SERVICE_HOST": "h"}, ()),
}


@pytest.mark.parametrize("case", ALONE)
def test_a_process_that_is_alone_touches_no_network(around, monkeypatch, case):
    variables, flags = ALONE[case]
    around(variables)

    def refuse(*_, **__):
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert cluster.find(*flags) is None
    with pytest.raises(UserError, match="--distributed wants several"):
        cluster.find(*flags, required=True)


REFUSED = {
    "a number without the rest": ({}, (None, 2, None), "--processes came without --coordinator and --process$"),
    "a coordinator alone": ({"JAX_COORDINATOR_ADDRESS": "a:1"}, (), "came without --processes and --process$"),
    "a number too high": ({}, ("a:1", 2, 2), "0 to 1 of 2 processes, got 2"),
    "a negative count": ({}, ("a:1", -2, 0), "at least 1, got -2"),
    "no port": ({}, ("host", 2, 0), "HOST:PORT .* got 'host'"),
    "a port too high": ({}, ("host:65536", 2, 0), "HOST:PORT"),
    "a variable that is no number": ({"JAX_NUM_PROCESSES": "two"}, (), "JAX_NUM_PROCESSES is a whole number, got 'two'"),
    "a flag against a variable": (JAX, ("b:3", 2, 1), "--coordinator is b:3 and JAX_COORDINATOR_ADDRESS is 10.0.0.1:99"),
    "a flag against SLURM": (SLURM, (None, 2), "--processes is 2 and SLURM counts 3"),
    "Open MPI 5 without a coordinator": ({k: v for k, v in ORTE.items() if "orte" not in k}, (), "give --coordinator"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_work_are_refused(around, case):
    variables, flags, message = REFUSED[case]
    around(variables)
    with pytest.raises(UserError, match=message):
        cluster.find(*flags)


def meeting(clusters, timeout=1.0, between=lambda: None):
    """What each of several processes, here threads, gets from the roll call."""
    results = [None] * len(clusters)

    def one(i):
        try:
            results[i] = roll_call.meet(clusters[i], timeout)
        except UserError as error:
            results[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(clusters))]
    for thread in threads:
        thread.start()
        between()
    for thread in threads:
        thread.join()
    return results


def several(processes, numbers, hosts=()):
    address = f"127.0.0.1:{port()}"
    return [Cluster(address, processes, i, None, tuple(hosts), "a test") for i in numbers]


def test_all_meet_in_any_order_and_strangers_do_not_count():
    members = several(3, (2, 0, 1))

    def stranger():
        try:
            with socket.create_connection(members[0].address, timeout=1) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        except OSError:  # before process 0 listens
            pass

    assert meeting(members, 20, stranger) == [(socket.gethostname(),) * 3] * 3


def test_everybody_who_came_learns_who_did_not():
    results = meeting(several(4, (0, 2), hosts="abcd"))
    assert all(type(error) is Lost and error.status == 75 for error in results)
    assert all("processes 1 (host b) and 3 (host d) of 4 did not come" in str(error) for error in results)


def test_without_process_0_the_others_say_so():
    (error,) = meeting(several(2, (1,), hosts="ab"))
    assert type(error) is Lost and "did not reach process 0 (host a)" in str(error)


def test_two_of_one_number_and_another_count_are_refused():
    for wrong in meeting(several(3, (0, 1, 1)), 20):
        assert type(wrong) is UserError and "two processes were told to be process 1" in str(wrong)
    (zero,) = several(2, (0,))
    for wrong in meeting([zero, Cluster(zero.coordinator, 3, 1, None, (), "a test")], 20):
        assert type(wrong) is UserError and "told of 3 processes and process 0 of 2" in str(wrong)


def test_a_port_in_use_is_refused():
    (zero,) = several(2, (0,))
    with socket.create_server(zero.address), pytest.raises(UserError, match="cannot listen on 127"):
        roll_call.meet(zero, 1)


MEETINGS = """
import os, signal, sys, time
from diffux.devices import together as distributed
from diffux.errors import UserError

me, count = int(sys.argv[2]), 3
distributed.initialize("127.0.0.1:" + sys.argv[1], count, me)

def said(what):
    try:
        with distributed.together():
            what()
    except UserError as error:
        print("SAID", type(error).__name__, error.status, error, flush=True)
    distributed.barrier("between")

assert distributed.exchange("letters", "abc"[me]) == ["a", "b", "c"]
said(lambda: distributed.agree("seed", str(me == 1), "use one"))
said(lambda: distributed.barrier("meal", 1) if me != 1 else time.sleep(2.5))

def fail():
    if me == 1:
        raise UserError("the disk is full")
    distributed.barrier("never", 60)

said(fail)

def hang():
    distributed.at("batch 6")
    if me != 1:
        distributed.at("batch 7")
    for _ in range(600):  # as a main thread would hang, but for heeding what it is told
        time.sleep(0.05)
        distributed._watching.check()

said(hang)

def wait():
    distributed.at("step 8")
    if me == 0:
        distributed.signalled(signal.SIGTERM)
    for _ in range(600):
        time.sleep(0.05)
        distributed._watching.check()

said(wait)

def save():
    distributed.at("a save", saving=True)
    distributed.signalled(signal.SIGTERM)
    time.sleep(4)

said(save)

def die():
    time.sleep(2)
    if me == 2:
        os.kill(os.getpid(), signal.SIGTERM)  # which JAX's notice of preemption would swallow
    time.sleep(60)  # as in a collective

said(die)
"""


@pytest.mark.slow
def test_barriers_and_ends_name_who_is_missing():
    """Three processes: one value differs, one comes late, one fails, one stays behind, one is told to stop while it waits, and
    one is ended while the others hang."""
    address = port()
    processes = [start(MEETINGS, address, i, DIFFUX_LOST_TIMEOUT="3", DIFFUX_STUCK_TIMEOUT="5") for i in range(3)]
    statuses, said = ends(processes, 120)
    assert statuses == [75, 75, -signal.SIGTERM], said
    lines = [[line for line in text.splitlines() if line.startswith("SAID")] for text in said]
    host = socket.gethostname()
    for i in range(3):
        assert "process 1 has the seed True and process 0 has False: use one" in lines[i][0], said[i]
    for i in (0, 2):
        assert lines[i][1].startswith("SAID Lost 75") and f"process 1 (host {host}) did not reach 'meal' within 1 s" in lines[i][1]
        assert lines[i][2].startswith("SAID Lost 2") and f"process 1 (host {host}) ended: the disk is full" in lines[i][2]
        assert lines[i][3] == f"SAID Lost 75 process 1 (host {host}) is stuck in 'batch 6' for 5 s", said[i]
        signalled = "a signal came while it waited in 'step 8'; nothing was saved after the last checkpoint"
        assert lines[i][4:] == [f"SAID Lost 143 process 0 (host {host}) ended: {signalled}"], said[i]
    assert "SAID UserError 2 the disk is full" in lines[1][1] and lines[1][2:] == lines[0][3:]
    for i in (0, 1):
        assert f"error: process 2 (host {host}) is gone: it was silent for 3 s" in said[i]


def test_a_signal_that_comes_during_the_agreement_is_kept(monkeypatch):
    from jax.experimental import multihost_utils

    def interrupted(value):
        gathered = np.array([value, 0])
        os.kill(os.getpid(), signal.SIGTERM)
        return gathered

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", interrupted)
    with Stop() as stop:
        stop.listen()
        assert not stop.agreed(1, 1)
        monkeypatch.setattr(multihost_utils, "process_allgather", lambda value: np.array([value, 0]))
        assert stop.agreed(2, 1) and stop.signal == signal.SIGTERM


def test_a_workdir_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "exchange", lambda what, value, timeout=None: ["pid 7" if what == "workdir" else value])
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    for text in (None, "pid 6"):
        if text:
            (tmp_path / ".lock").write_text(text)
        with pytest.raises(UserError, match="process 1 does not see"):
            folder.check_shared(tmp_path, plan({}), patience=0.3)
    (tmp_path / ".lock").write_text("pid 7")
    folder.check_shared(tmp_path, plan({}), patience=0.3)


def test_hosts_of_a_node_list():
    assert cluster._expanded("a[01-03,7],b,rack[9-10]x") == ("a01", "a02", "a03", "a7", "b", "rack9x", "rack10x")


def test_many_missing_processes_are_counted():
    assert roll_call.named([3]) == "process 3"
    assert roll_call.named(range(1, 20)) == "processes 1, 2, 3, 4, 5 and 14 more"
    assert roll_call.named([0, 1], ["a", ""]) == "processes 0 (host a) and 1"

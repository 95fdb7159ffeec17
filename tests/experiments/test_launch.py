"""The launch recipes: their syntax, their fields, and both scripts from end to end with stubs for the cluster's commands."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.devices.processes import CONFIG, ROOT, TRAIN, environment, port

LAUNCH = ROOT / "experiments" / "launch"
SCRIPTS = ("tpu_vm.sh", "slurm.sbatch")

# Starts what follows its options as a job step of SLURM_NTASKS tasks on this host; ends with the highest status, as srun does.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do
  SLURM_STEP_NODELIST=127.0.0.1 SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & tasks[i]=$!
done
worst=0
for task in "${tasks[@]}"; do
  wait "$task"; status=$?
  if ((status > worst)); then worst=$status; fi
done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*"
"""
# Runs --command in a shell of its own for each of two workers, which find each other by JAX's variables.
GCLOUD = """#!/usr/bin/env bash
echo "gcloud ${*:1:6}"
for word in "$@"; do case $word in --command=*) command=${word#--command=} ;; esac; done
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$PORT JAX_NUM_PROCESSES=2
for i in 0 1; do
  (cd "$WORKERS_HOME" && JAX_PROCESS_ID=$i bash -c "$command") & done
wait
"""


@pytest.fixture
def cluster(tmp_path):
    """(environment, arguments of train.py): a PATH on which the cluster's commands are stubs, and python a small training."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "small.py").write_text(CONFIG)
    python = f'#!/usr/bin/env bash\n[ "$1" = experiments/train.py ] && exec {sys.executable} {tmp_path}/train.py "${{@:2}}"\n'
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "gcloud": GCLOUD, "python": python}.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    (tmp_path / "diffux").symlink_to(ROOT)
    more = {"PATH": f"{stubs}:{os.environ['PATH']}", "PYTHON": "python", "WORKERS_HOME": str(tmp_path), "PAUSE": "0"}
    return environment(**more), [f"--config={tmp_path}/small.py", f"--workdir={tmp_path}/run"]


def launch(script, environment, arguments):
    return subprocess.Popen(
        ["bash", LAUNCH / script, *arguments],
        env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def training_processes(workdir):
    """The processes whose command line has --workdir=workdir and Python, by their number in the run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if f"--workdir={workdir}" in command and command[0] == sys.executable:
            found.append(int(folder.name))
    return sorted(found)


def interrupt_one(started, workdir):
    """SIGTERM to one of the two processes once there is a checkpoint."""
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / "5" / "checksums.json").exists():
        assert started.poll() is None and time.monotonic() < deadline, started.communicate()[0]
        time.sleep(0.05)
    both = training_processes(workdir)
    assert len(both) == 2
    os.kill(both[1], signal.SIGTERM)


def said(started):
    try:
        return started.communicate(timeout=300)[0]
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_are_whole(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)


def test_the_recipes_use_flags_that_exist():
    shown = subprocess.run(
        [sys.executable, "experiments/train.py", "--help"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    documented = set(re.findall(r"--[a-z][a-z-]*", shown))
    assert {"--coordinator", "--processes", "--process", "--start-timeout", "--distributed"} <= documented
    for recipe in (*SCRIPTS, "gke_jobset.yaml"):
        lines = (LAUNCH / recipe).read_text().split("experiments/train.py", 1)[1]
        own = re.findall(r"(?:^|\s)(--(?:config|workdir|distributed|coordinator|process\w*|start\S*))", lines)
        assert "--distributed" in own and set(own) <= documented, recipe


def test_the_jobset_is_as_large_as_its_slice():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and jobset["kind"] == "JobSet"
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chips = math.prod(int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    each = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == each
    assert job["completions"] == job["parallelism"] == chips // each and chips % each == 0 and each == 4
    assert job["completionMode"] == "Indexed" and replicated["replicas"] == 1
    # What cannot work is not tried again: the job fails by this rule, and by that reason the set does.
    assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["operator"] == "In" and rule["onExitCodes"]["values"] == [2, 3, 4]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(word.startswith(f"--workdir={path}/") for word in container["command"] for path in paths)


@pytest.mark.slow
def test_slurm_finds_its_tasks_and_requeues_a_job_that_was_stopped(cluster, tmp_path):
    around, arguments = cluster
    first = 65535 - 2**12 + 1  # JAX's port of job n is first + n % 2**12
    job = next(n for n in range(100, 2**12) if _free(first + n))
    around |= {"SLURM_JOB_ID": str(job), "SLURM_NTASKS": "2", "SLURM_SUBMIT_DIR": str(ROOT)}
    started = launch("slurm.sbatch", around, arguments)
    interrupt_one(started, tmp_path / "run")
    output = said(started)
    assert started.returncode == 143, output
    assert "2 processes on 1 host, told by SLURM" in output and f"scontrol requeue {job}" in output
    started = launch("slurm.sbatch", around, arguments)
    output = said(started)
    assert started.returncode == 0 and "continuing the run in" in output and "done: 40 steps" in output, output
    started = launch("slurm.sbatch", around, [*arguments, "--config.seed=3"])  # another run in its workdir
    output = said(started)
    assert started.returncode == 2 and "scontrol" not in output, output


@pytest.mark.slow
def test_the_tpu_script_starts_again_what_was_stopped_and_nothing_else(cluster, tmp_path):
    around, arguments = cluster
    around |= {"TPU": "pod", "ZONE": "here", "PORT": port()}
    started = launch("tpu_vm.sh", around, arguments)
    interrupt_one(started, tmp_path / "run")
    output = said(started)
    assert started.returncode == 0, output
    assert output.count("gcloud compute tpus tpu-vm ssh pod --zone=here") == 2
    assert "the workers ended with 143" in output and "continuing the run in" in output and "done: 40 steps" in output
    started = launch("tpu_vm.sh", around, [*arguments, "--config.seed=3"])
    output = said(started)
    assert started.returncode == 2 and output.count("gcloud compute") == 1, output


def _free(number):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", number)) != 0

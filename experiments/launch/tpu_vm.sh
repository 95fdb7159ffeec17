#!/usr/bin/env bash
# Train on all hosts of a TPU VM pod slice: one command on every worker, started anew while its exit status allows it.
#
#   TPU=my-v5e-16 ZONE=us-west4-a experiments/launch/tpu_vm.sh \
#     --config experiments/configs/ddpm_cifar10.py --workdir /mnt/runs/cifar10
#
# Every worker has this repository in ~/$REPOSITORY with `pip install -e ".[tpu]"` done in its .venv, and --workdir is on a
# file system that all of them share. RESTARTS is how often to start again, PAUSE the seconds before that.
set -uo pipefail
: "${TPU:?is the name of the TPU VM}" "${ZONE:?is the zone of the TPU VM}"
restarts=${RESTARTS:-20}
python=${PYTHON:-.venv/bin/python}

printf -v arguments ' %q' "$@"
remote="cd ${REPOSITORY:-diffux} && $python experiments/train.py --distributed$arguments"
remote="$remote; status=\$?; echo \"exit status \$status\"; exit \$status"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for ((attempt = 0; attempt <= restarts; attempt++)); do
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$remote" 2>&1 | tee "$log"
  statuses=$(grep -o 'exit status [0-9]*' "$log" | grep -o '[0-9]*$' | sort -un)
  if [ -z "$statuses" ]; then
    echo "no worker of $TPU ran the command" >&2
    exit 1
  fi
  # the command cannot work, the training diverged, the workdir cannot be written, or somebody interrupted it
  for final in 2 3 4 130; do
    if grep -qx "$final" <<<"$statuses"; then exit "$final"; fi
  done
  if [ "$statuses" = 0 ]; then exit 0; fi
  worst=$(tail -n 1 <<<"$statuses")
  echo "the workers ended with $(tr '\n' ' ' <<<"$statuses")" >&2
  sleep "${PAUSE:-10}"
done
echo "not done after $restarts restarts" >&2
exit "$worst"

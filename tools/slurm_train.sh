#!/usr/bin/env bash
# Runs tools/train.py under Slurm, one task per GPU.
#
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options]
#
# GPUS_PER_NODE=0 asks for no GPU and runs GPUS tasks on CPUs.
set -euo pipefail
if [ "$#" -lt 3 ]; then
  echo 'error: usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]' >&2
  exit 2
fi
command -v srun >/dev/null || {
  echo 'error: srun was not found: run this on a machine of a Slurm cluster, or use tools/dist_train.sh' >&2
  exit 2
}
# shellcheck source=tools/_python.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_python.sh"
partition=$1 job=$2
shift 2
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
options=(--partition="$partition" --job-name="$job" --ntasks="$gpus" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1)
if [ "$per_node" -gt 0 ]; then
  options+=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
fi
# SRUN_ARGS holds several words.
# shellcheck disable=SC2086
exec srun "${options[@]}" ${SRUN_ARGS:-} "$PYTHON" -u "$TOOLS/train.py" "$@" --launcher slurm

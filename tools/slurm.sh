#!/usr/bin/env bash
# slurm.sh PARTITION JOB_NAME SCRIPT [arguments]: what slurm_train.sh and slurm_test.sh share.
set -euo pipefail
partition=$1 job=$2
shift 2
gpus=${GPUS:-8}
case $gpus in '' | *[!0-9]* | 0) echo "error: GPUS must be a positive number, got '$gpus'" >&2; exit 2 ;; esac
command -v srun >/dev/null || { echo "error: there is no srun here; without Slurm: tools/dist_train.sh" >&2; exit 2; }

per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
# shellcheck disable=SC2086 # SRUN_ARGS is a list of flags
exec srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
    --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$@" --launcher slurm

#!/usr/bin/env bash
# Test under Slurm: srun starts one process for each GPU.
#
#   GPUS=8 bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of tools/test.py]
#
# GPUS (8), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5) and SRUN_ARGS are read from the environment.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
exec bash "$(dirname "$0")/slurm.sh" "$partition" "$job" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"

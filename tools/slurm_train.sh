#!/usr/bin/env bash
# Train under Slurm: srun starts one process for each GPU.
#
#   GPUS=16 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [flags of tools/train.py]
#
# GPUS (8), GPUS_PER_NODE (8 at most), CPUS_PER_TASK (5) and SRUN_ARGS are read from the environment. After
# a preemption (SIGTERM) the exit code is 75: saved, the same command with --resume goes on.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
partition=$1 job=$2 config=$3
shift 3
case ${1:-} in
    '' | -*) ;;
    *) set -- --work-dir "$@" ;; # as OpenMMLab's own script has it
esac
exec bash "$(dirname "$0")/slurm.sh" "$partition" "$job" "$(dirname "$0")/train.py" "$config" "$@"

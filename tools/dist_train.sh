#!/usr/bin/env bash
# Train on several GPUs, or without CUDA on several CPU processes over gloo.
#
#   bash tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
#
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
# MAX_RESTARTS=3: when a process dies, all start again up to three times and go on with the newest
# checkpoint. After SIGTERM or Ctrl-C the exit code is 75: saved, --resume goes on.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec bash "$(dirname "$0")/launch.sh" "$gpus" "$(dirname "$0")/train.py" "$config" "$@"

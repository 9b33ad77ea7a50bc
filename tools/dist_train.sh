#!/usr/bin/env bash
# Train on several GPUs, or without CUDA on several CPU processes over gloo.
#
#   bash tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
#
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec bash "$(dirname "$0")/launch.sh" "$gpus" "$(dirname "$0")/train.py" "$config" "$@"

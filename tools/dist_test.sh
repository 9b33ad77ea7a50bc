#!/usr/bin/env bash
# Test on several GPUs, or without CUDA on several CPU processes over gloo.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of tools/test.py]
#
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec bash "$(dirname "$0")/launch.sh" "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"

#!/usr/bin/env bash
# launch.sh GPUS SCRIPT [arguments]: what dist_train.sh and dist_test.sh share.
set -euo pipefail
gpus=$1
shift
case $gpus in '' | *[!0-9]* | 0) echo "error: GPUS must be a positive number, got '$gpus'" >&2; exit 2 ;; esac

python=${PYTHON:-python}
if [ "${NNODES:-1}" -eq 1 ] && [ -z "${PORT:-}" ]; then
    rendezvous=(--standalone) # one machine: a free port is chosen
else
    rendezvous=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
fi
# CPU processes share the cores; torchrun's own default is one thread each
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / gpus > 0 ? cores / gpus : 1))}
exec "$python" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node "$gpus" "$@" --launcher pytorch

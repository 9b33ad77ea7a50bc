#!/usr/bin/env bash
# launch.sh GPUS SCRIPT [arguments]: what dist_train.sh and dist_test.sh share.
set -euo pipefail
gpus=$1 script=$2
shift
case $gpus in '' | *[!0-9]* | 0) echo "error: GPUS must be a positive number, got '$gpus'" >&2; exit 2 ;; esac
restarts=${MAX_RESTARTS:-0}
case $restarts in *[!0-9]*) echo "error: MAX_RESTARTS must be a number, got '$restarts'" >&2; exit 2 ;; esac

python=${PYTHON:-python}
nodes=${NNODES:-1} node=${NODE_RANK:-0} address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
if [ "$nodes" -eq 1 ] && [ -z "${PORT:-}" ]; then
    rendezvous=(--standalone) # one machine: a free port is chosen
elif [ "$restarts" -gt 0 ]; then # machines that start again find each other anew
    rendezvous=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$address:$port" --rdzv-id agent_attention
        --rdzv-conf "is_host=$([ "$node" -eq 0 ] && echo true || echo false)")
    [ "$node" -ne 0 ] || rendezvous+=(--local-addr "$address")
else
    rendezvous=(--nnodes "$nodes" --node-rank "$node" --master-addr "$address" --master-port "$port")
fi
# each start gets a store of its own; in a shared one gloo finds the addresses of the dead
[ "$restarts" -eq 0 ] || export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# CPU processes share the cores; torchrun's own default is one thread each
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / gpus > 0 ? cores / gpus : 1))}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

"$python" -m mmengine_agent.run.launch "${rendezvous[@]}" --max-restarts "$restarts" --nproc-per-node "$gpus" "$@" \
    --launcher pytorch &
child=$! signal=
trap 'signal=15; kill -TERM $child 2>/dev/null || true' TERM
trap 'signal=2; kill -TERM $child 2>/dev/null || true' INT
code=0
wait $child || code=$?
while kill -0 $child 2>/dev/null; do # a signal ends `wait`, and the processes are still saving
    code=0
    wait $child || code=$?
done
# torchrun ends with 1; train.py's 75 says that --resume goes on
if [ -n "$signal" ] && [ $code -ne 0 ]; then
    case $script in */train.py) code=75 ;; *) code=$((128 + signal)) ;; esac
fi
exit $code

#!/usr/bin/env bash
# On a machine with a GPU: verify the numbers, measure, train the demo; one report, in some minutes.
#
#   bash benchmarks/gpu_day.sh [DIR]        # default: work_dirs/gpu_day; or: make gpu_day
#
# Needs torch, NumPy, matplotlib and pytest. What needs OpenMMLab is left out where there is none:
# mmdet's backbones, the table of mixers and the demo, which trains with --amp, and by
# dist_train.sh where there are two GPUs. DEVICE=cpu tries the script without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-work_dirs/gpu_day} device=${DEVICE:-cuda} python=${PYTHON:-python}
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
failed=0

"$python" -m pytest -q --device "$device" tests/mixers tests/compute/test_executors.py \
    tests/backbones/test_{every_backbone,pvt,swin,vit}.py tests/test_golden.py \
    tests/test_golden_families.py > "$out/tests.txt" 2>&1 || failed=1
"$python" benchmarks/gpu_day.py --device "$device" --out "$out" || failed=1

if "$python" -c "import mmcv.ops, mmdet, mmseg" 2> /dev/null; then
    "$python" benchmarks/mixers.py --device "$device" --dtype bfloat16 --place pvt \
        --sizes 512x512 800x1344 --out "$out" || failed=1
    "$python" tools/make_demo_data.py || failed=1
    gpus=$("$python" -c "import torch; print(torch.cuda.device_count())")
    for task in maskrcnn semantic_fpn; do
        config=configs/demo/agent_pvt_${task}_demo.py
        train=("$python" tools/train.py "$config")
        [ "$gpus" -gt 1 ] && train=(bash tools/dist_train.sh "$config" 2)
        amp=$([ "$device" = cuda ] && echo --amp)
        # shellcheck disable=SC2086
        "${train[@]}" $amp --work-dir "$out/$task" \
            && "$python" tools/test.py "$config" "$(cat "$out/$task/last_checkpoint")" \
                --work-dir "$out/$task" || failed=1
    done
fi
exit $failed

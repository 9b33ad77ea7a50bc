#!/usr/bin/env bash
# Make an environment with everything the toolkit needs. Cheap when there is nothing to do.
#
#   bash requirements/install.sh VENV [maintained|upstream]
#
# PYTHON   interpreter to use                      (default: the first of python3.11, 3.12, 3.10)
# TORCH    version of torch                        (default: that of requirements/torch.txt)
# TORCH_INDEX   an index to take torch from, such as one of CPU or CUDA builds
# MMCV_WHEEL    a prebuilt wheel of mmcv for that torch: a path or an address
set -euo pipefail
case $1 in /*) venv=$1 ;; *) venv=$PWD/$1 ;; esac
stack=${2:-maintained}
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "error: $*" >&2; exit 1; }

case $stack in
    maintained) openmmlab=openmmlab.txt mmcv=onedl-mmcv ;;
    upstream) openmmlab=upstream.txt mmcv=mmcv ;;
    *) fail "STACK=$stack: choose maintained or upstream" ;;
esac

find_python() {
    local python
    for python in ${PYTHON:-python3.11 python3.12 python3.10 python3}; do
        if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    fail "no Python 3.10, 3.11 or 3.12 found${PYTHON:+ (PYTHON=$PYTHON)}: install one or set PYTHON=/path/to/python"
}

# One compiled wheel for each torch, Python and machine: pip's own cache forgets for which torch it was.
wheel_folder() {
    "$venv/bin/python" - <<'PY'
import os, pathlib, platform, sys, torch
cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
print(cache / "agent-attention" / f"torch-{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")
PY
}

build_mmcv() { # FOLDER REQUIREMENT: compile into a temporary folder, so that no half wheel is ever kept
    local part=$1.part log started=$SECONDS
    command -v "${CXX:-c++}" >/dev/null || fail "mmcv must be compiled and there is no C++ compiler: apt-get install g++ (or set CXX)"
    rm -rf "$part" && mkdir -p "$part" "$1"
    log=$1/build.log
    echo "compiling $2 for this torch: about 10 minutes on 2 cores, once (log: $log)"
    MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} "$venv/bin/pip" wheel --no-deps \
        --no-build-isolation --no-cache-dir --no-binary "$mmcv" --wheel-dir "$part" "$2" >"$log" 2>&1 &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 5
        [ $(((SECONDS - started) / 30)) -eq "${shown:-0}" ] || echo "  still compiling: $((SECONDS - started)) s"
        local shown=$(((SECONDS - started) / 30))
    done
    wait "$pid" || { tail -n 20 "$log" >&2; fail "mmcv did not compile; the end of $log is above"; }
    mv "$part"/*.whl "$1"/
    rm -rf "$part"
}

install_mmcv() {
    local requirement wheel folder
    if [ -n "${MMCV_WHEEL:-}" ]; then
        pip install --no-deps "$MMCV_WHEEL"
        return
    fi
    requirement=$(grep "^$mmcv==" "$here/$openmmlab")
    folder=$(wheel_folder)
    wheel=$folder/${mmcv/-/_}-${requirement#*==}-*.whl
    # shellcheck disable=SC2086  (the star is to be expanded)
    ls $wheel >/dev/null 2>&1 || build_mmcv "$folder" "$requirement"
    # shellcheck disable=SC2086
    pip install --no-deps $wheel
}

pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

wanted=$(cat "$here"/*.txt "$here/install.sh" "$here/../pyproject.toml" | cksum)" $stack ${TORCH:-} ${MMCV_WHEEL:-} $here"
[ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ] && exit 0

started=$SECONDS
if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    echo "making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || fail "$python cannot make a virtual environment: apt-get install python3-venv"
fi
echo "installing torch and what mmcv is compiled with"
pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ${TORCH:+"torch==$TORCH"} \
    -r <(grep -v "${TORCH:+^torch==}${TORCH:-^#}" "$here/torch.txt")
install_mmcv
echo "installing OpenMMLab and the toolkit"
(cd "$here" && pip install --no-build-isolation -r "$openmmlab" -r dev.txt)
pip install hatchling editables
pip install --no-build-isolation --no-deps --editable "$here/.."
if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
    # opencv-python wants the system's OpenGL library, which servers and containers often lack
    echo "opencv-python does not import here; taking opencv-python-headless instead"
    pip uninstall --yes opencv-python opencv-python-headless
    pip install -c "$here/constraints.txt" opencv-python-headless
fi
"$venv/bin/python" -c 'import mmdet_agent, mmseg_agent' 2>&1 | grep -i error >&2 && fail "the installation does not import; remove $venv and try again"
echo "$wanted" >"$venv/.installed"
echo "installed in $((SECONDS - started)) s"

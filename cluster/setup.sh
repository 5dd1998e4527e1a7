#!/usr/bin/env bash
# Sets up one machine: system libraries for headless rendering, then a virtual environment with everything.
# Usage: cluster/setup.sh [VENV]        (default: .venv in the checkout)
#   PYTHON            interpreter to build the environment with (default: python3)
#   TORCH_INDEX_URL   where pip finds torch, for a CPU or CUDA build other than the default index's
#   EXTRAS            of pyproject.toml; nodes of a cluster need no dev (default: libero,cluster,dev)
#   NO_BROWSER        set it where nobody runs tests (a cluster's nodes): leaves out Chromium
# Safe to repeat: it does nothing when pyproject.toml, constraints.txt and this folder's package list are unchanged.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}
extras=${EXTRAS:-libero,cluster,dev}

fail() { echo "setup: $*" >&2; exit 2; }

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null ||
    fail "Python 3.11 to 3.13 is needed ($python is not): set PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip' 2>/dev/null ||
    fail "$python has no venv support: install it with 'apt-get install python3-venv'"
command -v c++ >/dev/null || fail "no C++ compiler: install one with 'apt-get install g++'"

# --- headless OpenGL --------------------------------------------------------------------------------------
gl_packages="libegl1 libgl1 libgl1-mesa-dri libglib2.0-0"
has_gl() {
    "$python" - <<'PY'
import ctypes, sys
try:
    for name in ("libEGL.so.1", "libGL.so.1"):
        ctypes.CDLL(name)
except OSError:
    sys.exit(1)
import glob
sys.exit(not (glob.glob("/usr/share/glvnd/egl_vendor.d/*.json") or glob.glob("/etc/glvnd/egl_vendor.d/*.json")))
PY
}
if ! has_gl; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing the libraries for headless rendering ($gl_packages)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $gl_packages >/dev/null ||
            fail "apt-get could not install $gl_packages: install them by hand, then repeat"
    else
        fail "no headless OpenGL: ask an administrator for 'apt-get install $gl_packages', then repeat"
    fi
fi

# --- virtual environment ----------------------------------------------------------------------------------
stamp=$venv/.setup-$(cat pyproject.toml constraints.txt cluster/libero-packages.txt cluster/setup.sh | sha256sum | cut -c1-16)-$extras
[ -e "$stamp" ] && exit 0

# --- a browser, for the test that opens MLflow's compare page; the test says so where there is none ------------
if [ -z "${NO_BROWSER:-}" ] && ! command -v chromium >/dev/null; then
    if [ "$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release; then
        echo "setup: installing Chromium (about two minutes, at most 480 MB)"
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null ||
            echo "setup: apt-get could not install chromium; the test of MLflow's compare page will be skipped" >&2
    else
        echo "setup: no chromium here; the test of MLflow's compare page will be skipped" >&2
    fi
fi

# --- what goes into it ----------------------------------------------------------------------------------------
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
echo "setup: installing into $venv (about five minutes, 3.5 GB)"
$pip install -q --upgrade "pip>=24" "setuptools>=77" wheel
# torch comes first and alone: any later resolver is then held to this very build.
$pip install -q ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' constraints.txt)"
$pip install -q --progress-bar off -c constraints.txt -e ".[$extras]"
$pip install -q --no-deps -c constraints.txt -r cluster/libero-packages.txt
"$venv/bin/python" -c 'import torch, ray, deepspeed, mlflow, mujoco, robosuite' >/dev/null 2>&1 ||
    fail "the installed packages do not import: run $venv/bin/python -c 'import torch, ray, deepspeed, mlflow, mujoco, robosuite' to see why"
rm -f "$venv"/.setup-*
touch "$stamp"
echo "setup: done"

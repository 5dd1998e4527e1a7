#!/usr/bin/env bash
# One machine of a cluster: what `ray up` does on it (cluster/aws.yaml, cluster/gcp.yaml, cluster/local.yaml).
#   node.sh install              system packages, and the environment that pyproject.toml describes
#   node.sh head COMMAND ...     run a `ray start --head` in the environment of a head, beside the MLflow server
#   node.sh worker COMMAND ...   run a `ray start --address` in that of a worker
#   node.sh stop                 end Ray
# Settings are lines NAME=VALUE of ~/avavla.env, which every `ray up` writes anew, and of ~/avavla_machine.env, which is
# this one machine's own and wins over it; the environment wins over both.
#   AVAVLA_STORE        for runs, MLflow's artifacts and backups of its database: s3://BUCKET, gs://BUCKET or a folder
#   AVAVLA_KIND         simulator, learner or both; else learner where there is an NVIDIA GPU, simulator where not
#   LIBERO_ASSETS       a place from which LIBERO's own geometry is copied here; else what comes with the project
#   MLFLOW_HOST, _PORT  where the MLflow server listens; else at all addresses, 5000, and a firewall keeps the world out
#   AVAVLA_HEAD_ADDRESS the head's own, as workers reach it; else that of the interface that leads outside
#   RAY_START_OPTIONS   more options for `ray start`
#   TORCH_INDEX_URL, PYTHON, EXTRAS     as cluster/setup.sh takes them
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$here")
venv=$project/.venv
assets=$HOME/libero-assets

say() { echo "node: $*"; }
fail() { echo "node: $*" >&2; exit 2; }

# Lines NAME=VALUE, read as text: a settings file runs nothing.
settings() {
    local line name
    [ -r "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
        [[ $line =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] || fail "in $1 this is not NAME=VALUE: $line"
        name=${line%%=*}
        [ -n "${!name:-}" ] || export "$name=${line#*=}"
    done <"$1"
}
settings "$HOME/avavla_machine.env"
settings "$HOME/avavla.env"
mlflow_port=${MLFLOW_PORT:-5000}

case ${AVAVLA_STORE:-} in
*CHANGE-ME*) fail "AVAVLA_STORE is still $AVAVLA_STORE: name your own place in the cluster file, then 'ray up' again" ;;
esac

# Ray's launcher sets OMP_NUM_THREADS=1, which nproc takes for the number of processors.
cpus() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; }
has_gpu() { [[ $(nvidia-smi -L 2>/dev/null) == GPU* ]]; }

# --- install ----------------------------------------------------------------------------------------------------
system_packages() {
    local installed package missing=()
    local packages=(python3-venv python3-dev g++ rsync libegl1 libgl1 libgl1-mesa-dri libglib2.0-0)
    command -v dpkg-query >/dev/null || return 0 # no Debian: cluster/setup.sh says what is missing
    # With what each stands for: newer releases have some of these under another name.
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}, ${Provides}\n' | grep '^installed')
    for package in "${packages[@]}"; do
        grep -Eq "[ ,]${package//+/[+]}(,| |$)" <<<"$installed" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    # A machine that has just booted is still being set up by its cloud, with apt.
    if command -v cloud-init >/dev/null; then "${as_root[@]}" cloud-init status --wait >/dev/null || true; fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install ${missing[*]}: have an administrator do it, then repeat"
}

copy_assets() {
    [ -n "${LIBERO_ASSETS:-}" ] || return 0
    [ "$(cat "$assets/.copied-from" 2>/dev/null)" = "$LIBERO_ASSETS" ] && return 0
    say "copying LIBERO's geometry from $LIBERO_ASSETS"
    rm -rf "$assets"
    mkdir -p "$assets"
    "$venv/bin/python" - "$LIBERO_ASSETS" "$assets" <<'PY' || fail "LIBERO_ASSETS=$LIBERO_ASSETS could not be copied"
import sys

from pyarrow import fs

source, path = fs.FileSystem.from_uri(sys.argv[1])
fs.copy_files(path, sys.argv[2], source_filesystem=source, destination_filesystem=fs.LocalFileSystem())
PY
    echo "$LIBERO_ASSETS" >"$assets/.copied-from"
}

install() {
    system_packages
    # torch of the default index is built for CUDA and weighs 5 GB with its libraries.
    if ! has_gpu; then export TORCH_INDEX_URL=${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}; fi
    NO_BROWSER=1 EXTRAS=${EXTRAS:-libero,cluster} "$here/setup.sh" "$venv"
    # Rather no machine than one that is paid for its GPU and learns on the CPU.
    if has_gpu && [ "${AVAVLA_KIND:-}" != simulator ] &&
        ! "$venv/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        fail "torch sees no GPU behind this driver: let TORCH_INDEX_URL name a build for it, or update the driver"
    fi
    copy_assets
    # For whoever logs in, and for `ray down`, which says no more than `ray stop`.
    grep -qs "$venv/bin" "$HOME/.bashrc" ||
        echo "export PATH=$venv/bin:\$PATH RAY_AUTH_MODE=token" >>"$HOME/.bashrc"
}

# --- start ------------------------------------------------------------------------------------------------------
# Ray hands the environment of `ray start` on to the drivers and actors of that machine.
prepare() {
    [ -x "$venv/bin/ray" ] || fail "no environment in $venv: run '$here/node.sh install'"
    [ -s "$HOME/.ray/auth_token" ] ||
        fail "no ~/.ray/auth_token: run 'ray get-auth-token --generate' where you type 'ray up', then 'ray up' again"
    chmod 600 "$HOME/.ray/auth_token"
    export RAY_AUTH_MODE=token
    export PATH=$venv/bin:$PATH
    if [ -e "$assets/.copied-from" ]; then export LIBERO_ASSETS_PATH=$assets; fi
    ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
}

head_address() {
    # As Ray finds it. Nothing is sent.
    "$venv/bin/python" - <<'PY'
import socket

probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(("8.8.8.8", 53))
print(probe.getsockname()[0])
PY
}

serve_mlflow() {
    local folder=$HOME/mlflow
    mkdir -p "$folder"
    # Runs and their artifacts belong together: those of one store are not served beside those of another.
    if [ -e "$folder/mlflow.db" ] && [ -s "$folder/store" ] && [ "$(cat "$folder/store")" != "${AVAVLA_STORE%/}" ]; then
        fail "$folder has the runs of $(cat "$folder/store"), not of $AVAVLA_STORE: name that store again, or end its" \
            "server (kill \$(cat $folder/lock)) and move $folder away"
    fi
    echo "${AVAVLA_STORE%/}" >"$folder/store"
    # In a session of its own, or it would end with this one. It ends by itself when another one already runs.
    setsid nohup "$venv/bin/python" "$here/mlflow_server.py" --store "$AVAVLA_STORE" --folder "$folder" \
        --host "${MLFLOW_HOST:-0.0.0.0}" --port "$mlflow_port" --address "$1" </dev/null >>"$folder/server.log" 2>&1 &
    "$venv/bin/python" "$here/mlflow_server.py" --wait 300 --host "${MLFLOW_HOST:-0.0.0.0}" --port "$mlflow_port" ||
        fail "MLflow does not answer at port $mlflow_port: $folder/server.log says why"
}

start_head() {
    prepare
    [ -n "${AVAVLA_STORE:-}" ] || fail "AVAVLA_STORE is not set: say in ~/avavla.env where runs are kept"
    export AVAVLA_STORE
    # Drivers run here. What they start, they start elsewhere: each kind of actor on machines of its kind.
    export AVAVLA_SIMULATORS_ON=simulator AVAVLA_LEARNERS_ON=learner
    export AVAVLA_RUNS=$AVAVLA_STORE/runs
    local address
    address=${AVAVLA_HEAD_ADDRESS:-$(head_address)}
    export MLFLOW_TRACKING_URI=http://$address:$mlflow_port
    export RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-30} # for a driver to save a checkpoint
    serve_mlflow "$address"
    # shellcheck disable=SC2086  # options are words
    exec "$@" ${RAY_START_OPTIONS:-}
}

start_worker() {
    prepare
    # What a cloud's machine offers is said in the cluster file, and Ray hands it over; one's own machines say it here.
    local own=() kind=${AVAVLA_KIND:-} resources=''
    if [ -z "${RAY_OVERRIDE_RESOURCES:-}" ]; then
        if [ -z "$kind" ]; then kind=$(has_gpu && echo learner || echo simulator); fi
        case $kind in
        simulator) resources="{\"simulator\": $(cpus)}" ;;
        learner) resources='{"learner": 1}' ;;
        both) resources="{\"simulator\": $(cpus), \"learner\": 1}" ;;
        *) fail "AVAVLA_KIND=$kind: give simulator, learner or both" ;;
        esac
        own=("--resources=$resources" "--labels=kind=$kind")
    fi
    # shellcheck disable=SC2086  # options are words
    exec "$@" "${own[@]}" ${RAY_START_OPTIONS:-}
}

stop() { if [ -x "$venv/bin/ray" ]; then "$venv/bin/ray" stop; fi; }

action=${1:-}
[ $# -gt 0 ] && shift
case $action in
install | stop) "$action" ;;
head | worker)
    [ $# -gt 0 ] || fail "$action: give the 'ray start' to run"
    "start_$action" "$@"
    ;;
*) fail "give install, head, worker or stop (the top of $0 says more)" ;;
esac

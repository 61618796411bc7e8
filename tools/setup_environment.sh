#!/usr/bin/env bash
# Makes the project's own virtual environment and installs the package into it.
#   tools/setup_environment.sh VENV_FOLDER EXTRAS      e.g.  tools/setup_environment.sh .venv dev
# Uses $PYTHON when set, otherwise the first Python >= 3.11 on the PATH. Quiet; the log of a failed step is shown.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
extras=$2

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.12 python3.11 python3 python3.13 python; do
        if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "No Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    return 1
}

make_venv() {
    local python=$1 version
    "$python" -m venv "$venv" >"$log" 2>&1 </dev/null && return
    # Debian and Ubuntu keep ensurepip in a package of its own.
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "Installing $version ..."
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$version"; } >"$log" 2>&1 </dev/null || true
        rm -rf "$venv"
        "$python" -m venv "$venv" >>"$log" 2>&1 </dev/null && return
    fi
    cat "$log" >&2
    echo "No virtual environment could be made. On Debian or Ubuntu run: sudo apt-get install $version" >&2
    return 1
}

mkdir -p "$(dirname "$venv")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! "$venv/bin/python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making the virtual environment $venv with $("$python" --version) ..."
    rm -rf "$venv"
    make_venv "$python"
fi

# pip keeps downloads in its own cache; without a home folder it would keep none.
[ -n "${HOME:-}" ] && [ -w "${HOME:-/nonexistent}" ] || export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$PWD/.cache/pip}"
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "Installing the package and its extras [$extras]: minutes the first time, seconds afterwards ..."
# Wheels only, so that nothing needs a compiler; crcmod (for pyigtl) exists as source alone and does without one.
for attempt in 1 2 3; do
    if "$venv/bin/python" -m pip install --quiet --no-input --retries 5 --timeout 60 --only-binary ":all:" --no-binary crcmod --editable ".[$extras]" >"$log" 2>&1 </dev/null; then
        exit 0
    fi
    [ "$attempt" = 3 ] || { echo "The installation did not finish; trying again ..."; sleep $((5 * attempt)); }
done
cat "$log" >&2
echo "The packages could not be installed. Check the network or pip's settings, then run the same command again." >&2
exit 1

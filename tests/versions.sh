#!/usr/bin/env bash
# The core on every Python with its release of Ansible: versions.sh prepare, then versions.sh run REPORT_FOLDER.
# `make test` does both. The Python of .venv is left out, as it runs every test. A Python that is not there is a failure.
# Its JUnit files go to REPORT_FOLDER. The environments are kept in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."
SUPPORTED="3.11 3.12 3.13"
# The oldest that a host may have; the modules must run on it (module_utils/swiftdeploy_target).
HOST=3.9

of_venv=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# What an environment is made from; another Python or another requirement makes it anew.
key() { { pwd && cat requirements*.txt service/requirements.txt pyproject.toml "$1/pyvenv.cfg"; } 2>/dev/null | sha256sum; }

make_one() {
    folder=.cache/venv-$1
    [ "$(cat "$folder/.made" 2>/dev/null)" != "$(key "$folder")" ] || return 0
    rm -rf "$folder"
    mkdir -p .cache
    tools/make-venv.sh "$folder" "$1"
    # Compiled when it is used: most of Ansible never is.
    [ "$1" = "$HOST" ] || "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-test.txt
    key "$folder" >"$folder/.made"
}

case ${1:-} in
prepare)
    for version in $HOST $SUPPORTED; do
        [ "$version" = "$of_venv" ] || make_one "$version"
    done
    ;;
run)
    status=0
    # One of them works on a host with the oldest Python, the other on one with its own.
    host_python=$PWD/.cache/venv-$HOST/bin/python
    for version in $SUPPORTED; do
        [ "$version" != "$of_venv" ] || continue
        folder=$PWD/.cache/venv-$version
        echo "== Python $version, $("$folder/bin/ansible" --version | head -n 1)"
        PATH="$folder/bin:$PATH" SWIFTDEPLOY_HOST_PYTHON=$host_python "$folder/bin/python" -m pytest tests/versions tests/unit \
            -q -n 2 --dist loadfile --no-loadscope-reorder --durations 5 -p no:cacheprovider --junitxml "$2/versions-$version.xml" || status=1
        host_python=
    done
    exit "$status"
    ;;
*)
    sed -n 2,4p "$0" >&2
    exit 2
    ;;
esac

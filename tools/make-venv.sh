#!/bin/sh
# Make a virtual environment from a Python that Ansible supports here: make-venv.sh FOLDER [3.11|3.12|3.13]
set -eu
folder=$1
version=${2:-}
# Those of pyenv lie where no PATH leads, unless its shims are switched to them.
pyenv=${PYENV_ROOT:-${HOME:-/root}/.pyenv}/versions
if [ -n "$version" ]; then
    candidates="${PYTHON:-} python$version python3 /usr/local/bin/python$version /usr/bin/python$version $pyenv/$version.*/bin/python"
else
    candidates="${PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3 $pyenv/3.1[123].*/bin/python"
fi
for candidate in $candidates; do
    if "$candidate" -c 'import sys
low, high, is_one = (3, 11), (3, 13), sys.version_info[:2]
sys.exit("%d.%d" % is_one != sys.argv[1] if sys.argv[1] else not low <= is_one <= high)' "$version" 2>/dev/null; then
        if "$candidate" -m venv "$folder" >/dev/null 2>&1; then
            exit 0
        fi
        rm -rf "$folder"
        no_venv=$candidate
    fi
done
if [ -n "${no_venv:-}" ]; then
    echo "$no_venv cannot make a virtual environment: on Debian or Ubuntu, apt-get install python3-venv" >&2
elif [ -n "$version" ]; then
    echo "no Python $version was found, neither on the PATH nor in $pyenv: install it (pyenv install $version), or name it with PYTHON=/path/to/python" >&2
else
    echo "no Python 3.11 to 3.13 was found: install one, or name it with PYTHON=/path/to/python3 make ..." >&2
fi
exit 1

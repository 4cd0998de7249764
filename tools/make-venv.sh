#!/bin/sh
# Make a virtual environment from a Python that Ansible supports here: make-venv.sh FOLDER
set -eu
folder=$1
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        if "$candidate" -m venv "$folder" >/dev/null 2>&1; then
            exit 0
        fi
        rm -rf "$folder"
        no_venv=$candidate
    fi
done
if [ -n "${no_venv:-}" ]; then
    echo "$no_venv cannot make a virtual environment: on Debian or Ubuntu, apt-get install python3-venv" >&2
else
    echo "no Python 3.11 to 3.13 was found: install one, or name it with PYTHON=/path/to/python3 make ..." >&2
fi
exit 1

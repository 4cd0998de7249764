#!/usr/bin/env bash
# Print the folder with the programs prometheus and promtool: the machine's own, else Debian's package unpacked below
# .cache. Nothing is installed and no service is started.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/prometheus

if found=$(command -v prometheus) && command -v promtool >/dev/null; then
    dirname "$found"
    exit
fi
if [ ! -x "$cache/usr/bin/promtool" ]; then
    log=$(mktemp)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder" "$log"' EXIT
    chmod 755 "$folder"
    get() { (cd "$folder" && timeout 300 apt-get -q -o APT::Sandbox::User=root download prometheus) >>"$log" 2>&1; }
    # The package lists may be missing or old.
    get || { timeout 300 apt-get -q update >>"$log" 2>&1 && get; } || {
        tail -n 5 "$log" >&2
        echo "Debian's package prometheus cannot be had. Put prometheus and promtool on the PATH, or run this on" \
            "Debian or Ubuntu as a user that may run apt-get update." >&2
        exit 1
    }
    dpkg -x "$folder"/prometheus_*.deb "$folder/tree"
    mkdir -p "$cache/usr/bin"
    # Whole or not at all, and promtool last, as it is what is looked for.
    for program in prometheus promtool; do
        cp "$folder/tree/usr/bin/$program" "$cache/usr/bin/.$program.$$"
        mv "$cache/usr/bin/.$program.$$" "$cache/usr/bin/$program"
    done
fi
echo "$cache/usr/bin"

#!/usr/bin/env bash
# Print the path of a Chromium: the machine's own, else Debian's package, installed (it needs root, as apt-get does).
set -euo pipefail

find_it() { command -v chromium || command -v chromium-browser || command -v google-chrome-stable; }

if ! find_it; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    get() { DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -q --no-install-recommends chromium >>"$log" 2>&1; }
    # The package lists may be missing or old.
    get || { timeout 300 apt-get -q update >>"$log" 2>&1 && get; } || {
        tail -n 5 "$log" >&2
        echo "Debian's package chromium cannot be had. Put chromium on the PATH, or run this on Debian as root." >&2
        exit 1
    }
    find_it
fi

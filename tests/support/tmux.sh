#!/usr/bin/env bash
# Print the command of tmux, a word a line: the machine's own, else Debian's packages unpacked below .cache. Nothing is
# installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/tmux

if command -v tmux; then
    exit
fi
if [ ! -x "$cache/usr/bin/tmux" ]; then
    log=$(mktemp)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder" "$log"' EXIT
    chmod 755 "$folder"
    # Its libraries have names of their own in each release. The C library is there.
    get() {
        local libraries
        libraries=$(apt-cache depends tmux | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' | grep -v '^libc6$')
        # shellcheck disable=SC2086
        (cd "$folder" && timeout 300 apt-get -q -o APT::Sandbox::User=root download tmux $libraries) >>"$log" 2>&1
    }
    # The package lists may be missing or old.
    get || { timeout 300 apt-get -q update >>"$log" 2>&1 && get; } || {
        tail -n 5 "$log" >&2
        echo "Debian's package tmux cannot be had. Put tmux on the PATH, or run this on Debian or Ubuntu as a user" \
            "that may run apt-get update." >&2
        exit 1
    }
    for package in "$folder"/*.deb; do
        dpkg -x "$package" "$folder/tree"
    done
    # Whole or not at all, and the program last, as it is what is looked for.
    mkdir -p "$cache/usr/bin" "$cache/lib"
    find "$folder/tree" -name '*.so*' -exec cp -P {} "$cache/lib/" ';'
    cp "$folder/tree/usr/bin/tmux" "$cache/usr/bin/.tmux.$$"
    mv "$cache/usr/bin/.tmux.$$" "$cache/usr/bin/tmux"
fi
printf '%s\n' env "LD_LIBRARY_PATH=$cache/lib" "$cache/usr/bin/tmux"

#!/usr/bin/env bash
# debian.sh PACKAGE PROGRAM...: print the folder with these programs of Debian's package: the machine's own, else the
# package unpacked below .cache, with the libraries it needs. Nothing is installed and no service is started.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=$1
shift
cache=$PWD/.cache/debian/$package

if found=$(command -v "$@") && [ "$(wc -l <<<"$found")" -eq $# ]; then
    dirname "$(head -n 1 <<<"$found")"
    exit
fi
if [ ! -x "$cache/bin/${!#}" ]; then
    log=$(mktemp)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder" "$log"' EXIT
    chmod 755 "$folder"
    # Libraries have names of their own in each release. The C library is there, and what a page would load is not needed.
    get() {
        local libraries
        libraries=$(apt-cache depends "$package" | sed -n '/libc6$/d; /libjs-/d; s/^ *Depends: \(lib[^ ]*\)$/\1/p')
        # shellcheck disable=SC2086
        (cd "$folder" && timeout 300 apt-get -q -o APT::Sandbox::User=root download "$package" $libraries) >>"$log" 2>&1
    }
    # The package lists may be missing or old.
    get || { timeout 300 apt-get -q update >>"$log" 2>&1 && get; } || {
        tail -n 5 "$log" >&2
        echo "Debian's package $package cannot be had. Put $* on the PATH, or run this on Debian or Ubuntu as a user" \
            "that may run apt-get update." >&2
        exit 1
    }
    for file in "$folder"/*.deb; do
        dpkg -x "$file" "$folder/tree"
    done
    mkdir -p "$cache/bin" "$cache/lib" "$cache/unpacked"
    find "$folder/tree" -name '*.so*' -exec cp -P {} "$cache/lib/" ';'
    # Whole or not at all, and the last program last, as it is what is looked for.
    for program; do
        cp "$folder/tree/usr/bin/$program" "$cache/unpacked/.$program.$$"
        mv "$cache/unpacked/.$program.$$" "$cache/unpacked/$program"
        # shellcheck disable=SC2016
        printf '#!/bin/sh\nat=$(dirname "$0")/..\nexec env LD_LIBRARY_PATH="$at/lib" "$at/unpacked/%s" "$@"\n' "$program" \
            >"$cache/bin/.$program.$$"
        chmod 755 "$cache/bin/.$program.$$"
        mv "$cache/bin/.$program.$$" "$cache/bin/$program"
    done
fi
echo "$cache/bin"

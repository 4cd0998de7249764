#!/usr/bin/env bash
# Print the name of the image of a test host, built when it is not there yet: build.sh bare|engine [RELEASE OF DEBIAN].
# The base is Debian's own debootstrap, as a registry is not always in reach. Needs root on Debian, and an engine.
set -euo pipefail
cd "$(dirname "$0")"
variant=${1:?bare or engine}
release=${2:-bookworm}
mirror=${SWIFTDEPLOY_DEBIAN_MIRROR:-http://deb.debian.org/debian}
compose=/usr/local/lib/docker/cli-plugins/docker-compose

# Two test processes build it once.
exec 9>/tmp/swiftdeploy-test-hosts.lock
flock 9

base=swiftdeploy-test/debian:$release
name=swiftdeploy-test/$variant:$release-$(cat ./* | sha256sum | cut -c1-12)
log=$(mktemp)
work=$(mktemp -d)
trap 'rm -rf "$log" "$work"' EXIT
fail() {
    tail -n 15 "$log" >&2
    echo "The image of a test host could not be built: $1" >&2
    exit 1
}

if ! docker image inspect "$name" >/dev/null 2>&1; then
    if ! docker image inspect "$base" >/dev/null 2>&1; then
        get() { DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -q --no-install-recommends debootstrap >>"$log" 2>&1; }
        command -v debootstrap >/dev/null || get || { timeout 300 apt-get -q update >>"$log" 2>&1 && get; } ||
            fail "Debian's package debootstrap cannot be had; run this on Debian as root"
        timeout 600 debootstrap --variant=minbase "$release" "$work/tree" "$mirror" >>"$log" 2>&1 || fail "debootstrap failed"
        rm -f "$work"/tree/var/cache/apt/archives/*.deb
        tar -C "$work/tree" -c . | docker import - "$base" >>"$log" || fail "docker import failed"
    fi
    mkdir -p "$work/context"
    cp ./* "$work/context"
    [ -x "$compose" ] || compose=$(find /usr/libexec/docker /usr/lib/docker "${HOME:-/root}/.docker" -name docker-compose -type f 2>/dev/null | head -n 1)
    [ -n "$compose" ] || fail "the compose plugin is nowhere; tests/engine/up.sh puts it there"
    cp -L "$compose" "$work/context/docker-compose"
    timeout 900 docker build --network host --build-arg BASE="$base" --target "$variant" -t "$name" "$work/context" >>"$log" 2>&1 ||
        fail "docker build failed"
fi
echo "$name"

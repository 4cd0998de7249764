#!/bin/sh
# Brings up a Docker engine with the compose plugin for the tests. Running it again changes nothing.
#
# 1. An engine that answers is used as it is.
# 2. Else, as root on Debian or Ubuntu: Debian's docker.io is installed and dockerd is started,
#    with systemd where that runs, by hand where it does not.
# 3. The compose plugin, where missing, is unpacked from Debian 13 into /usr/local/lib/docker/cli-plugins;
#    the machine's own apt sources stay as they are.
# Anything else ends with a message and the ways out. What this script started, down.sh stops.
set -eu

STATE=${SWIFTDEPLOY_ENGINE_STATE:-/run/swiftdeploy-test-engine}
PLUGINS=/usr/local/lib/docker/cli-plugins
MIRROR=${SWIFTDEPLOY_DEBIAN_MIRROR:-http://deb.debian.org/debian}
WAIT_SECONDS=60

say() { printf 'engine: %s\n' "$*"; }

fail() {
    printf 'engine: %s\n' "$1" >&2
    printf '%s\n' "Ways out:" \
        "  - start Docker on this machine (Engine 20.10 or newer with the compose plugin), then run this again" \
        "  - point DOCKER_HOST at an engine that answers" \
        "  - run this script as root on Debian or Ubuntu: it installs docker.io and starts it" >&2
    exit 1
}

answers() { timeout 10 docker info >/dev/null 2>&1; }
has_plugin() { timeout 10 docker "$1" version >/dev/null 2>&1; }

is_debian() {
    [ -r /etc/os-release ] && command -v apt-get >/dev/null 2>&1 && grep -Eq '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release
}

# Why an engine cannot be set up here, or nothing when it can.
obstacle() {
    [ -z "${DOCKER_HOST:-}" ] || { echo "the engine at DOCKER_HOST=$DOCKER_HOST does not answer"; return; }
    [ "$(id -u)" = 0 ] || { echo "no Docker engine answers, and only root can set one up"; return; }
    is_debian || echo "no Docker engine answers, and this is neither Debian nor Ubuntu"
}

apt_install() {
    # RUNLEVEL=1 keeps the package from starting the daemon by itself: it is started below, known and logged.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -q --no-install-recommends "$@" \
        >"$STATE/apt.log" 2>&1
}

install_engine() {
    command -v dockerd >/dev/null 2>&1 && command -v iptables >/dev/null 2>&1 && return
    say "installing docker.io and iptables"
    apt_install docker.io iptables || {
        # The package lists may be missing or old; sources that do not answer only matter if ours is one of them.
        timeout 300 apt-get update -q >"$STATE/apt-update.log" 2>&1 || true
        apt_install docker.io iptables || {
            tail -n 5 "$STATE/apt.log" >&2
            fail "apt-get could not install docker.io and iptables (whole log: $STATE/apt.log)"
        }
    }
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting dockerd with systemd"
        systemctl start docker || fail "systemctl start docker failed; see: journalctl -u docker"
        echo systemd >"$STATE/started"
        return
    fi
    say "starting dockerd without systemd, its log is $STATE/dockerd.log"
    setsid nohup dockerd --pidfile "$STATE/dockerd.pid" >>"$STATE/dockerd.log" 2>&1 </dev/null &
    echo binary >"$STATE/started"
}

await_engine() {
    left=$((WAIT_SECONDS * 5))
    until answers; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || {
            tail -n 5 "$STATE/dockerd.log" >&2 2>/dev/null || true
            fail "dockerd was started but does not answer after $WAIT_SECONDS s (whole log: $STATE/dockerd.log)"
        }
        sleep 0.2
    done
}

# Unpacks one cli plugin from Debian 13 through a private apt configuration, so that signatures are checked
# and nothing but this one file reaches the machine.
install_plugin() {
    package=$1 version=$2 plugin=$3
    say "taking $plugin $version from Debian 13"
    apt_home=$(mktemp -d)
    trap 'rm -rf "$apt_home"' EXIT
    mkdir -p "$apt_home/lists/partial" "$apt_home/cache/archives/partial" "$apt_home/tree"
    chmod 755 "$apt_home"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR trixie main" >"$apt_home/sources.list"
    set -- -q -o Dir::Etc::sourcelist="$apt_home/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$apt_home/lists" -o Dir::Cache="$apt_home/cache" -o Acquire::Languages=none \
        -o APT::Sandbox::User=root
    { timeout 300 apt-get "$@" update && cd "$apt_home" && timeout 300 apt-get "$@" download "$package=$version*"; } \
        >"$STATE/apt-plugin.log" 2>&1 || fail "$package $version could not be had from $MIRROR (whole log: $STATE/apt-plugin.log)"
    dpkg -x "$apt_home/$package"_*.deb "$apt_home/tree"
    mkdir -p "$PLUGINS"
    find "$apt_home/tree" -type f -name "$plugin" -exec install -m 755 '{}' "$PLUGINS/$plugin" ';'
    cd / && rm -rf "$apt_home"
    trap - EXIT
}

ensure_plugin() {
    has_plugin "$1" && return
    [ "$(id -u)" = 0 ] && is_debian || fail "docker $1 does not work: the $1 plugin is missing"
    mkdir -p "$STATE"
    install_plugin "$2" "$3" "$4"
    has_plugin "$1" || fail "docker $1 still does not work, although $PLUGINS/$4 is there"
}

if ! answers; then
    why=$(obstacle)
    [ -z "$why" ] || fail "$why"
    mkdir -p "$STATE"
    install_engine
    start_engine
    await_engine
fi
ensure_plugin compose docker-compose 2.26.1 docker-compose

say "engine $(docker version --format '{{.Server.Version}}'), client $(docker version --format '{{.Client.Version}}')," \
    "compose $(docker compose version --short)"

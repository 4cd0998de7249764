#!/bin/sh
# Stops the Docker engine that up.sh started, and no other. Images and volumes stay.
set -eu

STATE=${SWIFTDEPLOY_ENGINE_STATE:-/run/swiftdeploy-test-engine}
WAIT_SECONDS=30

say() { printf 'engine: %s\n' "$*"; }

case $(cat "$STATE/started" 2>/dev/null || echo none) in
none)
    say "nothing to stop: no engine was started by up.sh"
    ;;
systemd)
    systemctl stop docker docker.socket
    rm -f "$STATE/started"
    say "stopped (systemd)"
    ;;
binary)
    pid=$(cat "$STATE/dockerd.pid" 2>/dev/null || echo)
    # The pid may belong to another program by now: only a dockerd is stopped.
    if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null || echo)" = dockerd ]; then
        kill -TERM "$pid"
        left=$((WAIT_SECONDS * 5))
        while [ -d "/proc/$pid" ]; do
            left=$((left - 1))
            [ "$left" -gt 0 ] || { say "dockerd ($pid) does not end after $WAIT_SECONDS s" >&2; exit 1; }
            sleep 0.2
        done
    fi
    rm -f "$STATE/started" "$STATE/dockerd.pid"
    say "stopped"
    ;;
esac

#!/bin/sh
# First program of a host: what systemd needs in a container, then systemd.
set -eu
for tree in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    mount -o remount,bind,rw "$tree" 2>/dev/null || true
done
[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
# In a container systemd takes its own words for the kernel's. From 256 on it refuses a machine's old cgroups unless told.
exec /lib/systemd/systemd SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1

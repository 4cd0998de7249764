#!/bin/sh
# Turns a bare host into a mirror of Docker's own packages, where the real one is not in reach: docker_mirror.sh
# Layout, names and signature are those of download.docker.com; what is in the packages is Debian's engine. Runs on the host
# as root; /root/docker-compose is the compose plugin. Prints the SHA-256 of the key that signs.
set -eu
version=5:28.5.2-1
exec 3>&1 1>/root/mirror.log 2>&1
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends gnupg apt-utils

pool=$(mktemp -d)
arch=$(dpkg --print-architecture)

# package NAME DEPENDS: from what is in ./NAME, which may have a control file already.
package() {
    mkdir -p "$1/DEBIAN"
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: tests <root@localhost>\n' "$1" "$version" "$arch"
        printf 'Depends: %s\nDescription: as Docker names it\n' "$2"
    } >"$1/DEBIAN/control"
    dpkg-deb --build --root-owner-group "$1" "$pool/$1_$arch.deb"
}

work=$(mktemp -d)
cd "$work"
dpkg-deb --raw-extract /var/cache/apt/archives/docker.io_*.deb docker-ce
needs=$(sed -n 's/^Depends: //p' docker-ce/DEBIAN/control)
package docker-ce "$needs, docker-ce-cli, containerd.io"
package docker-ce-cli "libc6"
package containerd.io "containerd, runc"
install -D -m 755 /root/docker-compose docker-compose-plugin/usr/libexec/docker/cli-plugins/docker-compose
package docker-compose-plugin "docker-ce-cli"

export GNUPGHOME=/root/mirror-key
mkdir -m 700 "$GNUPGHOME"
gpg --batch --passphrase '' --quick-generate-key mirror@localhost ed25519 sign never
gpg --armor --export >/root/gpg

for suite in debian/bookworm ubuntu/noble; do
    root=/srv/linux/${suite%/*}
    dist=dists/${suite#*/}
    mkdir -p "$root/pool" "$root/$dist/stable/binary-$arch"
    cp "$pool"/*.deb "$root/pool"
    cp /root/gpg "$root/gpg"
    cd "$root"
    apt-ftparchive packages pool >"$dist/stable/binary-$arch/Packages"
    apt-ftparchive -o APT::FTPArchive::Release::Suite="${suite#*/}" -o APT::FTPArchive::Release::Codename="${suite#*/}" \
        -o APT::FTPArchive::Release::Components=stable -o APT::FTPArchive::Release::Architectures="$arch" \
        release "$dist" >"$dist/Release"
    gpg --batch --clearsign --output "$dist/InRelease" "$dist/Release"
done
systemd-run --unit mirror python3 -m http.server 80 --directory /srv
sha256sum /root/gpg | cut -d' ' -f1 >&3

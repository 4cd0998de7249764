"""Who is believed about a client, what of its headers goes through, and on which addresses nginx listens."""

from __future__ import annotations

import errno
import socket
from itertools import product

import pytest

from swiftdeploy.manifest import ManifestError, parse
from swiftdeploy.rendering import underscored
from swiftdeploy_target import ports

MANIFEST = """\
services: {{image: a, port: 3000}}
nginx: {{image: b, port: 8080, real_ip: {{{real_ip}}}}}
network: {{name: net, driver_type: bridge}}
"""
ADDRESS = "an IPv4 or IPv6 address, or a network such as 10.0.0.0/8"
KEY = "m.yaml:2: nginx.real_ip.trusted"


def test_addresses_and_networks_of_both_families_are_taken() -> None:
    text = MANIFEST.format(real_ip='trusted: [10.1.2.3, 192.168.0.0/16, "::1", "fd00::/8", 203.0.113.7/32]')
    believed = parse(text.encode(), "m.yaml").config["nginx"]["real_ip"]
    assert believed["header"] == "X-Forwarded-For"
    assert believed["trusted"][1:3] == ["192.168.0.0/16", "::1"]


@pytest.mark.parametrize(
    ("real_ip", "says"),
    [
        ("trusted: [10.0.0.256]", f"{KEY}[0]: found 10.0.0.256, allowed {ADDRESS}"),
        ("trusted: [10.0.0.0/33]", f"{KEY}[0]: found 10.0.0.0/33, allowed {ADDRESS}"),
        ("trusted: [lb.example.org]", f"{KEY}[0]: found lb.example.org, allowed {ADDRESS}"),
        ("trusted: ['fe80::1%eth0']", f'{KEY}[0]: found "fe80::1%eth0", allowed {ADDRESS}'),
        ("trusted: [10.0.0.5/8]", "allowed 10.0.0.0/8, if that network is meant, or 10.0.0.5 alone"),
        ("trusted: [10.0.0.1, 0.0.0.0/0]", f"{KEY}[1]: found 0.0.0.0/0, allowed the addresses of the balancers alone"),
        ('trusted: ["::/0"]', "this would believe everybody"),
        ("trusted: []", f"{KEY}: found an empty list, allowed a list of 1 to 200 different IPv4 or IPv6 addresses"),
        ("header: X-Real-IP", f"{KEY}: found nothing"),
        ("trusted: [10.0.0.1], header: 'X Real'", 'nginx.real_ip.header: found "X Real", allowed a header name'),
    ],
)
def test_what_names_no_peer_is_said(real_ip: str, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(MANIFEST.format(real_ip=real_ip).encode(), "m.yaml")
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Content-Length", "Forwarded"])
def test_every_way_to_write_underscores_is_known(name: str) -> None:
    parts = name.split("-")
    ways = {
        parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))
        for marks in product("-_", repeat=len(parts) - 1)
    }
    assert len(underscored(name)) == len(ways) - 1
    assert {*underscored(name), name} == ways


def test_a_host_without_ipv6_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(family: int, _kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(ports.socket, "socket", refuse)
    assert ports.has_ipv6() is False


def test_a_port_of_one_family_alone_is_free_in_the_other() -> None:
    if not ports.has_ipv6():
        pytest.skip("this host has no IPv6")
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ports.port_free("::", port) == "in use"
        assert ports.port_free("0.0.0.0", port) is None

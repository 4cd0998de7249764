"""Whether a port of this host can be had."""

from __future__ import annotations

import errno
import socket
from typing import Optional


def has_ipv6() -> bool:
    """Whether a program can listen on IPv6: a kernel that has it switched off refuses even to try."""
    return socket.has_ipv6 and port_free("::", 0) is None


def port_free(address: str, port: int) -> Optional[str]:
    """None when ``address:port`` can be listened on, else why not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # As nginx does: what listens on IPv4 is another thing.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        return "in use" if error.errno == errno.EADDRINUSE else str(error.strerror or error).lower()
    return None

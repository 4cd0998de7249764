"""Whether a port of this host can be had."""

from __future__ import annotations

import errno
import socket
from typing import Optional


def port_free(address: str, port: int) -> Optional[str]:
    """None when ``address:port`` can be listened on, else why not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return "in use" if error.errno == errno.EADDRINUSE else str(error.strerror or error).lower()
    return None

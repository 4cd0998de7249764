"""Exit status 0 when the service on this machine is healthy: `python3 -m swift_service.healthcheck`.

Standard library alone, so that it starts quickly; host and port come from the same variables as the service's.
"""

from __future__ import annotations

import http.client
import os
import sys

from .settings import read_settings

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main() -> int:
    settings = read_settings(os.environ)
    host = ANY_ADDRESS.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as problem:
        sys.stdout.write(f"{host}:{settings.port}: {problem}\n")
        return 1
    sys.stdout.write(f"{host}:{settings.port}: status {status}\n")
    return 0 if status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())

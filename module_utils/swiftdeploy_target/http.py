"""Small HTTP questions to this host's own ports: bounded in time and size, no proxies, no redirects."""

from __future__ import annotations

import http.client
import ssl
from typing import Dict, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

MAX_BODY = 1024 * 1024


class Answer(NamedTuple):
    """An HTTP answer: status code, headers with lower-case names, at most MAX_BODY bytes of body."""

    status: int
    headers: Dict[str, str]
    body: bytes


def get(url: str, timeout: float, headers: Optional[Dict[str, str]] = None) -> Answer:
    """GET ``url``. Raises OSError or http.client.HTTPException when there is no answer.

    Certificates are not verified: the question goes to this host's own port, whose certificate names the
    public host, and nothing secret is sent.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port
    if parts.scheme == "https":
        context = ssl._create_unverified_context()  # noqa: S323
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read(MAX_BODY))
    finally:
        connection.close()


def try_get(url: str, timeout: float, headers: Optional[Dict[str, str]] = None) -> Tuple[Optional[Answer], str]:
    """Like get, but answers (None, why) where there is no answer."""
    try:
        return get(url, timeout, headers), ""
    except (OSError, http.client.HTTPException) as error:
        return None, str(error) or type(error).__name__

"""Scraping many slots at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

from .http import FetchError, fetch

# The classic text first: every service speaks it, and its parser forgives more.
ACCEPT = "text/plain;version=0.0.4;q=1.0,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1"


def scrape(slot: str, url: str, timeout: float, clock: Callable[[], float]) -> Dict[str, Any]:
    """One sample of a slot's metrics.

    ``clock`` answers unix seconds. {"slot", "at", "body", "content_type"}, where ``at`` is the moment of
    asking, or {"slot", "at", "cause", "detail"} when there is nothing to read.
    """
    at = clock()
    try:
        answer = fetch(url, timeout, {"Accept": ACCEPT, "User-Agent": "swiftdeploy"})
        if answer.status != 200:
            raise FetchError("http_status", f"{url} answers {answer.status}, expected 200")
        framed = "content-length" in answer.headers or "transfer-encoding" in answer.headers
        if not framed and answer.body and not answer.body.endswith(b"\n"):
            # Ended by closing alone: a cut number would still be a number.
            raise FetchError("incomplete", f"the answer of {url} ends in the middle of a line")
        body = answer.body.decode("utf-8")
    except UnicodeDecodeError:
        return {"slot": slot, "at": at, "cause": "not_prometheus", "detail": f"{url} answers no UTF-8 text"}
    except FetchError as problem:
        return {"slot": slot, "at": at, "cause": problem.cause, "detail": problem.detail}
    return {"slot": slot, "at": at, "body": body, "content_type": answer.headers.get("content-type", "")}


def scrape_all(slots: List[Dict[str, Any]], timeout: float, clock: Callable[[], float]) -> List[Dict[str, Any]]:
    """A sample of each of ``slots`` ({"slot", "url"}), asked at the same time; in the order given."""
    with ThreadPoolExecutor(max_workers=max(1, len(slots))) as pool:
        return list(pool.map(lambda one: scrape(one["slot"], one["url"], timeout, clock), slots))

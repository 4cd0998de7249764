"""The question for a program's health: what is asked, what counts as healthy, and what is said of any other answer.

How a service is asked is ``services.healthcheck`` of the manifest that its release was started with::

    {"path", "timeout": seconds, "host": name that it is to be asked by, or None, "scheme": "http" | "https",
     "status": what is healthy, as 204, "200-399" or a list of such}

The connection is plain HTTP whatever ``scheme`` says: https means that the service is told, as a balancer that
terminates TLS tells it, that its client came by https.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple
from urllib.parse import urlsplit

from . import secret_values
from .http import Answer, try_get
from .runtime import Runtime

FIRST_INTERVAL = 0.05
GONE_SECONDS = 3.0
# A program that is ready in the last moment still gets its chance.
SHORTEST_QUESTION = 0.1
STATUS = "200-299"
# Of an answer that is quoted: bytes that secrets are looked for in (the longest value fits), characters that a line is
# looked for in, characters that are shown.
SEARCHED, LOOKED_AT, SHOWN = 512 * 1024, 16 * 1024, 160
KEY = "services.healthcheck"


# --- what is asked ----------------------------------------------------------------------------------------------------


def headers(health: Dict[str, Any]) -> Dict[str, str]:
    """What a service is told with the question."""
    found = {"User-Agent": "swiftdeploy"}
    if health.get("host"):
        found["Host"] = health["host"]
    if health.get("scheme") == "https":
        found["X-Forwarded-Proto"] = "https"
    return found


def ranges(status: Any) -> Iterator[Tuple[int, int]]:
    """``status`` of the manifest as pairs of the lowest and the highest."""
    for one in status if isinstance(status, list) else [status or STATUS]:
        lowest, _, highest = str(one).partition("-")
        yield int(lowest), int(highest or lowest)


def accepted(status: int, health: Dict[str, Any]) -> bool:
    """Whether a service that answers ``status`` is healthy."""
    return any(lowest <= status <= highest for lowest, highest in ranges(health.get("status")))


def unhealthy(url: str, health: Dict[str, Any], timeout: float, stack_dir: Optional[Path]) -> str:
    """Why what answers at ``url`` is not healthy, in words; empty where it is. For one question alone."""
    answer, why = try_get(url, timeout, headers(health))
    if answer is None:
        return why
    return "" if accepted(answer.status, health) else told(answer, health, stack_dir)


# --- what came back ---------------------------------------------------------------------------------------------------


def told(answer: Answer, health: Dict[str, Any], stack_dir: Optional[Path]) -> str:
    """What was answered instead, and which key of the manifest that asks for. ``stack_dir``: whose secrets to mask."""
    place = _line(answer.headers.get("location", ""), stack_dir)
    words = f"it answers {answer.status}"
    if place:
        words += f" with Location: {place}"
    said = _first_line(answer, stack_dir)
    if said:
        words += f', "{said}"'
    advice = _advice(answer.status, place, said, health)
    return f"{words}; {advice}" if advice else words


def _line(text: str, stack_dir: Optional[Path]) -> str:
    """One line of what a service said: no secrets, nothing that steers a terminal, not too long."""
    if stack_dir is not None:
        # Before anything is cut off: half of a secret could not be told from any other text.
        text = secret_values.masked(stack_dir, text)
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _first_line(answer: Answer, stack_dir: Optional[Path]) -> str:
    """The first line of a body that says something; of a page without its markup."""
    text = answer.body[:SEARCHED].decode(errors="replace")
    if stack_dir is not None:
        text = secret_values.masked(stack_dir, text)
    text = text[:LOOKED_AT]
    if "html" in answer.headers.get("content-type", "") or text.lstrip()[:1] == "<":
        text = re.sub(r"(?is)<(script|style|head)\b.*?</\1\s*>|<[^>]*>", "\n", text)
    return next((line for line in (_line(line, None) for line in text.splitlines()) if line), "")


def _advice(status: int, location: str, said: str, health: Dict[str, Any]) -> str:
    """Which key of the manifest an answer asks for, empty where it asks for none."""
    if 300 <= status < 400 and location:
        return _where(status, location, health)
    if status in (400, 403, 404, 421) and not health.get("host") and (status != 404 or _names_host(said)):
        sure = status == 421 or _names_host(said)
        wants = "it wants to be asked by its own name" if sure else "if it wants to be asked by its own name"
        return f"{wants}: set {KEY}.host"
    if status == 404:
        return f"nothing is at {health.get('path')}: set {KEY}.path"
    if status in (401, 403):
        return f"it asks who is there: set {KEY}.path to one that needs no login, or {KEY}.status: [{status}]"
    if status == 405:
        return f"it takes no GET: set {KEY}.path to one that does, or {KEY}.status: [{status}]"
    return ""


def _names_host(said: str) -> bool:
    return re.search(r"\bhosts?\b|HTTP_HOST|\bdomain\b|DisallowedHost", said, re.IGNORECASE) is not None


def _where(status: int, location: str, health: Dict[str, Any]) -> str:
    try:
        place = urlsplit(location)
    except ValueError:
        return ""
    wanted: List[str] = []
    if place.scheme == "https" and health.get("scheme") != "https":
        wanted.append(f"{KEY}.scheme: https")
    elif place.netloc and place.netloc != health.get("host"):
        wanted.append(f"{KEY}.host: {place.netloc}")
    if place.path and place.path != health.get("path"):
        wanted.append(f"{KEY}.path: {place.path}")
    return f"set {' and '.join(wanted)}" if wanted else f"if that is healthy: set {KEY}.status: [{status}]"


# --- waiting ----------------------------------------------------------------------------------------------------------


def question(runtime: Runtime, program: str, url: Optional[str], health_path: str) -> Optional[str]:
    """What to ask now, None while the program has no address yet."""
    if url is not None:
        return url
    address = runtime.address(program)
    return f"http://{address}{health_path}" if address else None


def await_program(
    runtime: Runtime,
    program: str,
    health: Dict[str, Any],
    *,
    timeout: float,
    interval: float,
    url: Optional[str] = None,
    proof: Optional[Dict[str, str]] = None,
) -> Dict[str, Any]:
    """Ask until the answer is a healthy one: {"ok", "seconds", "why", "ended": whether it keeps ending by itself}.

    Gives up early on a program that keeps ending.

    ``health``: as above; ``url`` is asked, with the headers of ``proof``, instead of a slot's health path. Times in
    seconds.
    """
    started = time.monotonic()
    pause, why, last_seen = FIRST_INTERVAL, "it has no address", started
    answer: Optional[Answer] = None
    while True:
        asked = question(runtime, program, url, health["path"])
        if asked is not None:
            left = max(timeout - (time.monotonic() - started), SHORTEST_QUESTION)
            given = {**headers(health), **(proof or {})}
            answer, why = try_get(asked, min(float(health["timeout"]), left), given)
        now = time.monotonic()
        if answer is not None and accepted(answer.status, health):
            return {"ok": True, "seconds": round(now - started, 3), "why": "", "ended": False}
        if runtime.running().get(program):
            last_seen = now
        if now - last_seen > GONE_SECONDS:
            return {"ok": False, "seconds": round(now - started, 3), "why": "it keeps ending by itself", "ended": True}
        if now - started > timeout:
            words = why if answer is None else told(answer, health, runtime.folder)
            ended = not runtime.alive().get(program)
            return {"ok": False, "seconds": round(now - started, 3), "why": words, "ended": ended}
        # Quick at first, so that a fast start is seen at once; then at the pace that was asked for.
        time.sleep(min(pause, interval))
        pause *= 1.3


def complaint(runtime: Runtime, program: str, result: Dict[str, Any], lines: int) -> str:
    """Why ``program`` is not healthy, with the last lines that it printed."""
    log = runtime.logs(program, lines)
    shown = "\n".join(f"    {line}" for line in log) or "    (it printed nothing)"
    return f"{program} was not healthy after {result['seconds']:.1f} s: {result['why']}. Its last lines:\n{shown}"

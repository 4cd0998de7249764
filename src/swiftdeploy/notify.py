"""Tells other programs of events: a POST of JSON to each configured address, tried again for some minutes.

Three parts, none of which knows Ansible:

- `settings` reads where to and what of. The address often is the secret, so it is taken from the environment or a file.
- `Sender` listens to the history and starts this module as a process of its own (``python -m swiftdeploy.notify``) in
  a session of its own, so that neither a slow receiver nor Ctrl-C reaches the other side. It gets everything by
  standard input, never by arguments.
- `serve` is that process: it posts, one event after the other, and writes down what could not be delivered.

The generic body is the event's line of the history without its place in the chain::

    {"schema": 1, "id": "...", "text": "one or more lines for a person",
     "event", "timestamp", "run_id", "actor", "host", "service", "mode", "version", "release", "req_per_sec",
     "error_rate", "p99_latency_ms", "chaos", "reason", "duration_s",
     "policy": {domain: {"outcome", "reasons", "decision_id"}}}
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import hmac
import json
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import history

if TYPE_CHECKING:
    import requests

SCHEMA = 1
EVENTS = ("deploy*", "promote*", "rollback*", "override", "lock_broken", "policy_unavailable", "*_interrupted")
# A failed notification of a failed notification would never end.
NEVER = ("notification_failed",)
FORMATS = ("generic", "slack")
FIELDS = tuple(field for field in history.FIELDS if field not in ("seq", "policy"))
LOG_NAME = "notifications.log"
LOG_BYTES = 256 * 1024
# Seconds for a connection, for an answer, between two tries at most, and for one event in all.
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
PAUSE_SECONDS = 60.0
GIVE_UP_SECONDS = 300.0
# After the run has ended: what has not been delivered by then is not tried any more.
LINGER_SECONDS = 900.0
# Characters of what a person reads.
REASON_LENGTH = 3000
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})

TITLES = {
    "bootstrap": "Host made ready",
    "deploy": "Deployed",
    "deploy_run": "Deployed to the hosts",
    "promote_run": "Promoted on the hosts",
    "promote": "Promoted",
    "promote_step": "Canary step passed",
    "rollback": "Rolled back",
    "override": "POLICY OVERRIDDEN",
    "lock_broken": "Lock broken",
    "policy_unavailable": "NO DECISION from the policy engine",
    "chaos": "Chaos set",
    "teardown": "Torn down",
}
ENDINGS = {"_blocked": "DENIED", "_failed": "FAILED", "_interrupted": "INTERRUPTED"}


class SettingsError(Exception):
    """The settings are wrong; the message says which and what to do, and holds no address and no secret."""


@dataclass(frozen=True)
class Target:
    """Where to: the name is shown and recorded, ``url`` and ``secret`` never are (nor by repr)."""

    name: str
    url: str
    format: str
    secret: str = ""

    def __repr__(self) -> str:
        return f"Target({self.name})"


@dataclass(frozen=True)
class Settings:
    """What of, where to, and for how many seconds each event is tried."""

    targets: tuple[Target, ...]
    events: tuple[str, ...] = EVENTS
    seconds: float = GIVE_UP_SECONDS


# -------------------------------------------------------------------------------------------------- settings


def settings(environment: Mapping[str, str], options: Mapping[str, Any]) -> Settings | None:
    """What is configured; None where no address is. Raises SettingsError.

    ``environment`` may hold SWIFTDEPLOY_NOTIFY_URL and SWIFTDEPLOY_NOTIFY_SECRET; ``options``: {"url_file",
    "secret_file", "format", "events", "seconds"}, each of them may be missing or None.
    """
    given, file = environment.get("SWIFTDEPLOY_NOTIFY_URL", "").strip(), options.get("url_file")
    if not given and not file:
        return None
    if given and file:
        raise SettingsError("both SWIFTDEPLOY_NOTIFY_URL and notify_url_file are set: take one of them away")
    form = str(options.get("format") or "generic")
    secret = environment.get("SWIFTDEPLOY_NOTIFY_SECRET", "").strip()
    if not secret and options.get("secret_file"):
        secret = _content(str(options["secret_file"]), "notify_secret_file").strip()
    where = "SWIFTDEPLOY_NOTIFY_URL"
    lines = [given]
    if file:
        where = str(file)
        text = _content(where, "notify_url_file")
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    targets = tuple(_target(line, form, secret, f"{where} (address {place})") for place, line in enumerate(lines, 1))
    if not targets:
        raise SettingsError(f"{where} holds no address: write an http or https address into it")
    if len({target.name for target in targets}) < len(targets):
        raise SettingsError(f"{where} gives a name twice: give each address another name")
    return Settings(targets, _patterns(options.get("events")), _seconds(options.get("seconds")))


def _content(path: str, option: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{option} {path} cannot be read ({why}): correct the path or its owner") from None


def _target(line: str, form: str, secret: str, where: str) -> Target:
    """``ADDRESS``, or ``NAME FORMAT ADDRESS``."""
    words = line.split()
    name = "default"
    if len(words) == 3:
        name, form, line = words
    elif len(words) != 1:
        raise SettingsError(f"{where} is neither ADDRESS nor NAME FORMAT ADDRESS: correct the line")
    if form not in FORMATS:
        raise SettingsError(f"{where} has the format {form!r}: take {' or '.join(FORMATS)}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name):
        raise SettingsError(f"{where} has a name with other characters than letters, digits, dot, dash, underscore")
    try:
        parts = urlsplit(line)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right:
        raise SettingsError(f"{where} is no http or https address: write it as https://HOST/PATH")
    return Target(name, line, form, secret if form == "generic" else "")


def _patterns(given: Any) -> tuple[str, ...]:
    words = tuple(str(word).strip() for word in given or () if str(word).strip())
    wrong = [word for word in words if not re.fullmatch(r"[a-z0-9_*?\[\]!-]+", word)]
    if wrong:
        raise SettingsError(f"notify_events has {wrong[0]!r}: write names of events, for example deploy*, override")
    return words or EVENTS


def _seconds(given: Any) -> float:
    seconds = GIVE_UP_SECONDS if given is None else float(given)
    if not 1 <= seconds <= LINGER_SECONDS:
        raise SettingsError(f"notify_seconds is {seconds:g}: take 1 to {LINGER_SECONDS:g}")
    return seconds


# ---------------------------------------------------------------------------------------------------- bodies


def chosen(event: str, patterns: tuple[str, ...]) -> bool:
    """Whether an event of this name is told."""
    return event not in NEVER and any(fnmatch.fnmatchcase(event, pattern) for pattern in patterns)


def title(event: str) -> str:
    """An event's name in words: ``DENIED: promote``, ``Deployed``."""
    for ending, word in ENDINGS.items():
        if event.endswith(ending):
            return f"{word}: {event.removesuffix(ending).replace('_', ' ')}"
    return TITLES.get(event, event.replace("_", " ").capitalize())


def text(event: Mapping[str, Any]) -> str:
    """An event for a person: what, where, who, and why on lines of their own."""
    release = " ".join(
        str(word)
        for word in (
            event.get("service") or "",
            f"v{event['version']}" if event.get("version") else "",
            f"({event['mode']})" if event.get("mode") else "",
        )
        if word
    )
    name = str(event.get("event"))
    done = f"Nothing to change: {name}" if event.get("changed") is False else title(name)
    words = [done, release, f"on {event.get('host')}", f"by {event.get('actor')}"]
    line = "  ".join(word for word in words if word)
    reason = str(event.get("reason") or "").strip()
    if len(reason) > REASON_LENGTH:
        reason = reason[: REASON_LENGTH - 1] + "…"
    return f"{line}\n{reason}" if reason else line


def message(event: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """The generic body, see the top of this file."""
    values = history.plain(event)
    decisions = values["policy"] if isinstance(values.get("policy"), Mapping) else {}
    policy = {
        str(domain): {key: decision.get(key) for key in ("outcome", "reasons", "decision_id")}
        for domain, decision in decisions.items()
        if isinstance(decision, Mapping)
    }
    fields = {field: values.get(field) for field in FIELDS}
    fields["timestamp"] = fields["timestamp"] or history.utc_now()
    return {"schema": SCHEMA, "id": identity, "text": text(values), **fields, "policy": policy}


def body(target: Target, told: Mapping[str, Any]) -> bytes:
    """The bytes to post: ``told`` itself, or what Slack takes."""
    if target.format == "generic":
        return json.dumps(told, ensure_ascii=False).encode()
    escaped = str(told["text"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": escaped}, ensure_ascii=False).encode()


def headers(target: Target, told: Mapping[str, Any], content: bytes) -> dict[str, str]:
    """The headers of a post. The signature is HMAC-SHA256 over the body, RFC 2104, hexadecimal."""
    given = {
        "Content-Type": "application/json",
        "User-Agent": "swiftdeploy",
        "Idempotency-Key": str(told["id"]),
        "X-SwiftDeploy-Event": str(told["event"]),
    }
    if target.secret:
        signature = hmac.new(target.secret.encode(), content, hashlib.sha256).hexdigest()
        given["X-SwiftDeploy-Signature"] = f"sha256={signature}"
    return given


# ------------------------------------------------------------------------------------------ in the run's process


class Sender:
    """Listens to the history (`history_recorder.listeners`), and hands what is chosen to the process that posts.

    That is started with the first message. Nothing here waits for it. `warn` is told once when nothing can be sent.
    """

    def __init__(self, given: Settings, warn: Callable[[str], None]) -> None:
        self._job = {"targets": [asdict(target) for target in given.targets], "seconds": given.seconds}
        self._events = given.events
        self._warn = warn
        self._process: subprocess.Popen[bytes] | None = None
        self._broken = False

    def tell(self, history_path: Path, event: Mapping[str, Any]) -> None:
        """Hand over one event of that history, if it is chosen."""
        if self._broken or not chosen(str(event.get("event")), self._events):
            return
        told = message(event, str(uuid.uuid4()))
        try:
            if self._process is None:
                self._process = self._start()
            self._write(self._process, {"history": str(history_path), "told": told})
        except OSError as error:
            self._broken = True
            self._warn(f"the process that posts them could not be started ({error.strerror or 'it has ended'})")

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            # -P: what lies in the folder the playbook is run from is no module of ours.
            [sys.executable, "-P", "-m", "swiftdeploy.notify"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._write(process, self._job)
        return process

    @staticmethod
    def _write(process: subprocess.Popen[bytes], value: Mapping[str, Any]) -> None:
        stream = process.stdin
        if stream is None:
            raise BrokenPipeError
        # The first newline: Ctrl-C may have cut the line before, and what comes after it must not be lost with it.
        stream.write(b"\n" + json.dumps(value).encode() + b"\n")
        stream.flush()


# ------------------------------------------------------------------------------------- in the process that posts


class _GaveUpError(Exception):
    """The time for one event is over."""


def why(error: BaseException) -> str:
    """The cause in words. What requests and urllib3 say themselves names the address, which may be the secret."""
    import requests  # noqa: PLC0415 - here only: the playbook's process never needs it

    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (requests.exceptions.ConnectTimeout, f"no connection within {CONNECT_SECONDS:g} s"),
        (requests.exceptions.ReadTimeout, f"no answer within {READ_SECONDS:g} s"),
        (requests.exceptions.SSLError, "its certificate is not trusted, or TLS failed"),
        (requests.exceptions.ProxyError, "the proxy cannot be used"),
    )
    for kind, words in kinds:
        if isinstance(error, kind):
            return words
    return _innermost(error)


def _innermost(error: BaseException) -> str:
    """The operating system's word for what lies behind an error of the connection."""
    seen: BaseException | None = error
    for _depth in range(10):
        if isinstance(seen, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(seen, OSError) and seen.strerror and seen.errno:
            return seen.strerror.lower()
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen is not None and seen.args else None)
        following = seen.__cause__ or seen.__context__ if seen is not None else None
        seen = inner if isinstance(inner, BaseException) else following
        if seen is None:
            break
    return f"no connection ({type(error).__name__})"


def _session(seen: list[str]) -> requests.Session:
    """A session that tries again by itself. ``seen`` gets a word for each try that failed."""
    import requests  # noqa: PLC0415
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3.util.retry import Retry  # noqa: PLC0415

    class Noting(Retry):
        """Notes why it tries again."""

        def increment(
            self,
            method: str | None = None,
            url: str | None = None,
            response: Any = None,
            error: Any = None,
            *more: Any,
            **named: Any,
        ) -> Any:
            seen.append(f"HTTP {response.status}" if response is not None else why(error))
            return super().increment(method, url, response, error, *more, **named)

    retry = Noting(
        # The time decides, not the number.
        total=1000,
        redirect=0,
        status_forcelist=RETRIED,
        # A receiver tells a repeated post by its Idempotency-Key.
        allowed_methods=None,
        backoff_factor=0.5,
        backoff_jitter=1.0,
        backoff_max=PAUSE_SECONDS,
        retry_after_max=int(PAUSE_SECONDS),
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise _GaveUpError after ``seconds``, whatever is waited for. For the main thread."""

    def give_up(_signal: int, _frame: object) -> None:
        raise _GaveUpError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def post(target: Target, told: Mapping[str, Any], seconds: float) -> tuple[bool, str]:
    """Post one message for at most ``seconds``: whether it was taken, and in words how it went."""
    import requests  # noqa: PLC0415

    seen: list[str] = []
    content = body(target, told)
    try:
        with _within(seconds), _session(seen) as session:
            answer = session.post(
                target.url,
                data=content,
                headers=headers(target, told, content),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                # The body is for this address alone.
                allow_redirects=False,
                # What it says besides its status is nothing to us, and could be endless.
                stream=True,
            )
            status = answer.status_code
            answer.close()
    except _GaveUpError:
        last = seen[-1] if seen else "no answer"
        return False, f"{last}, {_tries(len(seen) or 1)} in {seconds:g} s"
    except (requests.exceptions.RequestException, ValueError) as error:
        return False, f"{why(error)}, {_tries(len(seen) + 1)}"
    tries = _tries(len(seen) + 1)
    if 200 <= status < 300:
        return True, f"HTTP {status}, {tries}"
    if 300 <= status < 400:
        return False, f"HTTP {status}, it sends on to another address, which is not followed: configure that one"
    return False, f"HTTP {status}, {tries}"


def _tries(count: int) -> str:
    return f"{count} {'try' if count == 1 else 'tries'}"


def serve(stream: IO[bytes]) -> None:
    """Post what comes on ``stream``: a line with the settings, then a line a message, until it ends.

    The settings are {"targets": [`Target`], "seconds"}, a message is {"history": the file, "told": the generic body}.
    """
    lines: queue.Queue[bytes | None] = queue.Queue()
    ended: list[float] = []

    def read() -> None:
        # At once, so that the run never waits for a receiver.
        for line in filter(bytes.strip, stream):
            lines.put(line)
        ended.append(time.monotonic())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    first = lines.get()
    if first is None:
        return
    job = json.loads(first)
    targets = [Target(**target) for target in job["targets"]]
    while (line := lines.get()) is not None:
        try:
            given = json.loads(line)
        except ValueError:
            # Ctrl-C came while the run wrote it.
            continue
        path, told = Path(given["history"]), given["told"]
        for target in targets:
            left = LINGER_SECONDS - (time.monotonic() - ended[0]) if ended else LINGER_SECONDS
            taken, how = post(target, told, min(float(job["seconds"]), left)) if left > 1 else (False, "no time left")
            _log(path, target, told, "delivered" if taken else "NOT DELIVERED", how)
            if not taken:
                _record(path, target, told, how)


def _record(path: Path, target: Target, told: Mapping[str, Any], how: str) -> None:
    """Write into the history that a notification failed."""
    event = {
        "event": "notification_failed",
        "run_id": told["run_id"],
        "actor": told["actor"],
        "host": told["host"],
        "service": told["service"],
        "target": target.name,
        "reason": f"{told['event']} was not delivered to {target.name}: {how}",
    }
    try:
        # A full file is closed by the next run, which knows the limit.
        history.append(path, event, max_size=0)
    except history.HistoryError as error:
        _log(path, target, told, "not recorded", str(error))


def _log(path: Path, target: Target, told: Mapping[str, Any], word: str, how: str) -> None:
    """A line beside the history. Where that cannot be written there is nobody left to tell."""
    log = path.with_name(LOG_NAME)
    with contextlib.suppress(OSError):
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_name(f"{LOG_NAME}.1"))
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as out:
            out.write(f"{history.utc_now()}  {target.name}  {told['event']}  {told['host']}  {word}  {how}\n")


def main() -> None:
    """Entry point of the process that posts."""
    # urllib3 logs the addresses that it tries again.
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    serve(sys.stdin.buffer)


if __name__ == "__main__":
    main()

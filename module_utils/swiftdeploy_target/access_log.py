"""The proxy's view of each slot: request times and statuses out of nginx's JSON access log.

A line's ``msec`` is the end of its request. What counts, and how:

- A request that ended in the window, for a slot asked about, on a path that is evidence.
- The slot is the line's ``slot``; where that is empty, the slot whose ``match`` holds the last address in
  ``upstream`` (the one that answered, after a retry).
- Where nginx tried one slot in vain and another one answered (``upstream_status`` "502, 200" beside two
  addresses in ``upstream``), the attempt counts as a request of the slot it failed at too, with the status and
  the time of that attempt, and its time is none of the slot that answered. Attempts belong to the slot whose
  ``match`` holds their address; several at one slot count once, as the last of them. Without a status for each
  address only the slot that answered is counted.
- Requests that nginx answered by itself (empty ``upstream``) say nothing about a slot: left out.
- A 502 or 504 that nginx made because the slot did not answer is an error of that slot. So is an answer with fewer
  bytes than its Content-Length announced: nginx did its part (``completed``), the slot broke off.
- 400 to 498 is the client's fault. It is neither a success nor an error, so a flood of it dilutes nothing.
- 499 is a client that left before it had an answer: abandoned, a figure of its own. One that left in the middle of an
  answer (``completed`` is empty) had one; how many did is told.
- A request whose client chose the slot (``forced``) is no evidence, except a probe of ours.
- Percentiles of the request time are exact, by nearest rank: the smallest value with at least q of all values
  at or below it.

Lines of another shape, torn lines and lines of other programs are passed over. Fields that an older configuration of
nginx does not write are taken for absent.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import selectors
import stat
import subprocess
import time
from collections import Counter
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

MAX_BYTES = 256 * 1024 * 1024
MAX_LINE = 64 * 1024
BLOCK = 256 * 1024
MAX_ROTATED = 100
# Several nginx workers write one file, each with a clock of its own: lines are nearly, not quite, in order.
SLACK_SECONDS = 5.0
# A line older than this before the window shows that nothing of the window was rotated away.
REACH_SECONDS = 1.0
STANDARD_PATHS = ("/healthz", "/metrics", "/chaos")
# What nginx answers about itself. Below MARKS it answers nothing but writes the line, so that a log that has the line
# has everything that came after it.
OWN_PATHS = "/_swiftdeploy/"
MARKS = "/_swiftdeploy/mark/"
# How long the newest lines may be under way from nginx to the log, and how often it is looked for them.
ARRIVAL_SECONDS = 3.0
ARRIVAL_PAUSE = 0.2
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Routes of a slot that are told apart, parts of a path, characters of a route, and how many are named.
MAX_ROUTES = 1000
ROUTE_PARTS = 4
MAX_ROUTE = 80
NAMED_ROUTES = 10


class LogError(Exception):
    """The log cannot be read: ``cause`` for programs, ``detail`` for a person."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


class LogTooLongError(LogError):
    """There is more log than is read at most."""


class Request(NamedTuple):
    """One line of the log. ``end`` is unix seconds, ``seconds`` the time the client waited.

    ``upstream`` are the addresses tried, in order; ``statuses`` and ``times`` are of the same order, as nginx
    wrote them, and empty where the log has none. ``broken``: nginx got less than the answer announced.
    ``left``: the client went away in the middle of an answer.
    """

    end: float
    slot: str
    upstream: List[str]
    path: str
    status: int
    seconds: float
    probe: bool
    statuses: List[str]
    times: List[str]
    method: str
    source: str
    probe_id: str
    forced: bool
    broken: bool
    left: bool


class Attempt(NamedTuple):
    """What one slot had of a request: its status, the seconds it took, and whether its answer was cut."""

    status: int
    seconds: float
    broken: bool = False
    left: bool = False


def _number(value: Any) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _each(value: Any) -> List[str]:
    """The parts of one of nginx's upstream variables: ", " between servers, " : " after an internal redirect."""
    return [one.strip() for one in re.split(r", | : ", value)] if isinstance(value, str) and value.strip() else []


def parse_line(line: bytes) -> Optional[Request]:
    """The request that ``line`` tells of, or None when it is no whole line of our access log."""
    if not line.startswith(b"{") or len(line) > MAX_LINE:
        return None
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    end, status, seconds = (_number(data.get(key)) for key in ("msec", "status", "request_time"))
    slot, upstream, path = (data.get(key) for key in ("slot", "upstream", "path"))
    if end is None or status is None or seconds is None:
        return None
    if not (isinstance(slot, str) and isinstance(upstream, str) and isinstance(path, str)):
        return None
    method, source, probe_id = (_text(data.get(key)) for key in ("method", "source", "probe_id"))
    broken, left = _cut(data, method, int(status))
    return Request(
        end,
        slot,
        _each(upstream),
        path.split("?", 1)[0],
        int(status),
        seconds,
        data.get("probe") is True,
        _each(data.get("upstream_status")),
        _each(data.get("upstream_time")),
        method,
        source,
        probe_id,
        data.get("forced") is True,
        broken,
        left,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _cut(data: Dict[str, Any], method: str, status: int) -> Tuple[bool, bool]:
    """Whether an answer of fewer than 400 was cut: (by the slot, by the client)."""
    completed = data.get("completed")
    if completed is None or status >= 400:
        return False, False
    if completed not in (True, "OK", "true"):
        return False, True
    announced, sent = (_amount(data.get(key)) for key in ("sent_length", "body"))
    bodiless = method == "HEAD" or status < 200 or status in (204, 304)
    return not bodiless and announced is not None and sent is not None and sent < announced, False


def _amount(value: Any) -> Optional[float]:
    """A number of bytes, which nginx writes as a number or, where it may be missing, as a text."""
    return _number(int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value)


@functools.lru_cache(maxsize=4096)
def route(method: str, path: str) -> str:
    """A request's route in a form that many requests share: the method, and the path with its numbers and ids as *.

    The path is a client's text: what is no plain letter, digit or mark of a path becomes a question mark.
    """
    parts = path.split("/")[1:]
    kept = ["*" if re.fullmatch(r"[0-9]+|(?=.*[0-9])[0-9A-Fa-f-]{8,}|(?=.*[0-9]).{20,}", one) else one for one in parts]
    shown = "/" + "/".join(kept[:ROUTE_PARTS]) + ("/..." if len(kept) > ROUTE_PARTS else "")
    return f"{method if method in METHODS else 'OTHER'} {re.sub(r'[^A-Za-z0-9._~/*-]', '?', shown)[:MAX_ROUTE]}"


def percentile(ordered: Sequence[float], q: float) -> Optional[float]:
    """Nearest rank: the smallest of ``ordered`` (ascending) with at least ``q`` of all at or below it."""
    if not ordered:
        return None
    # Rounded first, as 0.95 * 20 must be rank 19, not 19.000000000000004 and so 20.
    rank = math.ceil(round(q * len(ordered), 9))
    return ordered[min(len(ordered), max(1, rank)) - 1]


def _whole(text: str) -> Optional[int]:
    return int(text) if re.fullmatch(r"[0-9]{3}", text) else None


def _seconds(text: str) -> Optional[float]:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None


def there(status: int) -> bool:
    """Whether the service was responsible for an answer of this status: all but the client's errors."""
    return status < 400 or status >= 500


class _Counts:
    """What one slot had."""

    def __init__(self) -> None:
        self.seconds: List[float] = []
        self.errors = self.broken = self.client_errors = self.abandoned = self.left = self.forced = 0
        self.probes = self.seen = self.answered = 0
        self.methods: Counter[str] = Counter()
        # Routes that were exercised, and how often clients used those that are there.
        self.routes: Set[str] = set()
        self.used: Counter[str] = Counter()
        # Address of a client to answers and errors.
        self.sources: Counter[str] = Counter()
        self.source_errors: Counter[str] = Counter()

    def add(self, request: Request, attempt: Attempt) -> None:
        """Count one request that is evidence."""
        self.probes += request.probe
        self.methods[request.method if request.method in METHODS else "OTHER"] += 1
        if attempt.status == 499:
            self.abandoned += 1
            return
        answered = there(attempt.status)
        named = route(request.method, request.path)
        if named in self.routes or len(self.routes) < MAX_ROUTES:
            self.routes.add(named)
            self.used[named] += answered and not request.probe
        if not answered:
            self.client_errors += 1
            return
        failed = attempt.status >= 500 or attempt.broken
        self.seconds.append(attempt.seconds)
        self.errors += failed
        self.broken += attempt.broken
        self.left += attempt.left
        if not request.probe:
            self.sources[request.source] += 1
            self.source_errors[request.source] += failed


class Tally:
    """Collects requests for each slot. ``slots``: [{"slot", "match": [values of upstream]}].

    ``own`` is what marks our own probes. ``seen_since`` is where the service's view begins: how many requests each
    slot had since then, of whatever kind, is counted as well.
    """

    def __init__(
        self,
        slots: Iterable[Dict[str, Any]],
        since: float,
        until: float,
        exclude_paths: Iterable[str],
        *,
        own: str = "",
        seen_since: Optional[float] = None,
    ) -> None:
        self._since = since
        self._until = until
        self._own = own
        self._seen_since = since if seen_since is None else seen_since
        self._exclude = frozenset(exclude_paths)
        self._by_address: Dict[str, str] = {}
        self._counts: Dict[str, _Counts] = {}
        self.oldest = math.inf
        self.marks: Set[str] = set()
        for one in slots:
            self._counts[one["slot"]] = _Counts()
            self._by_address.update(dict.fromkeys(one.get("match") or [], one["slot"]))

    def add(self, request: Request) -> None:
        """Count ``request`` if it is evidence of a slot asked about."""
        self.oldest = min(self.oldest, request.end)
        if request.path.startswith(OWN_PATHS):
            if request.path.startswith(MARKS) and len(self.marks) < MAX_ROUTES:
                self.marks.add(request.path[len(MARKS) :])
            return
        if not request.upstream or request.upstream[-1] in ("", "-"):
            return
        if request.end > self._until or request.path in self._exclude:
            return
        forced = request.forced and not (request.probe and self._own and request.probe_id == self._own)
        for slot, attempt in self._by_slot(request).items():
            counts = self._counts.get(slot)
            if counts is None:
                continue
            if request.end > self._seen_since:
                counts.seen += 1
                counts.answered += there(attempt.status)
            if request.end > self._since:
                if forced:
                    counts.forced += 1
                else:
                    counts.add(request, attempt)

    def _by_slot(self, request: Request) -> Dict[str, Attempt]:
        """What each slot had of ``request``; under "" what belongs to none."""
        final = request.slot or self._by_address.get(request.upstream[-1], "")
        failed: Dict[str, Attempt] = {}
        elsewhere = 0.0
        earlier = request.upstream[:-1] if len(request.statuses) == len(request.upstream) else []
        times = request.times if len(request.times) == len(request.upstream) else [""] * len(request.upstream)
        for address, status, took in zip(earlier, request.statuses, times):
            slot = self._by_address.get(address, "")
            if slot == final:
                continue
            seconds = _seconds(took)
            elsewhere += seconds or 0.0
            # nginx turned away from it, so without a status it is an error; without a time it is no faster
            # than the whole.
            failed[slot] = Attempt(_whole(status) or 502, request.seconds if seconds is None else seconds)
        # The slot that answered is not to blame for what was waited for at another one.
        failed[final] = Attempt(request.status, max(0.0, request.seconds - elsewhere), request.broken, request.left)
        return failed

    def figures(self, truncated: bool) -> Dict[str, Dict[str, Any]]:
        """Slot to its figures: see RETURN of swiftdeploy_metrics for what becomes of them."""
        answer: Dict[str, Dict[str, Any]] = {}
        for slot, counts in self._counts.items():
            ordered = sorted(counts.seconds)
            row: Dict[str, Any] = {
                "requests": len(ordered),
                "errors": counts.errors,
                "broken": counts.broken,
                "client_errors": counts.client_errors,
                "abandoned": counts.abandoned,
                "left": counts.left,
                "forced": counts.forced,
                "probes": counts.probes,
                "seen": counts.seen,
                "answered": counts.answered,
                "methods": dict(sorted(counts.methods.items())),
                "truncated": truncated,
                **self._largest_source(counts),
                **self._unexercised(slot),
            }
            for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
                value = percentile(ordered, q)
                row[name] = None if value is None else value * 1000
            answer[slot] = row
        return answer

    @staticmethod
    def _largest_source(counts: _Counts) -> Dict[str, Any]:
        """How many answers the busiest address had, and how many answers and errors are left without it."""
        clients = sum(counts.sources.values())
        source, most = max(counts.sources.items(), key=lambda one: one[1], default=("", 0))
        return {
            "clients": clients,
            "largest_source": most,
            "rest_requests": clients - most,
            "rest_errors": sum(counts.source_errors.values()) - counts.source_errors[source],
        }

    def _unexercised(self, slot: str) -> Dict[str, Any]:
        """What clients used of the other slots and nobody did of this one: the most used routes, and their share."""
        used: Counter[str] = Counter()
        for other, counts in self._counts.items():
            if other != slot:
                used.update(counts.used)
        total = sum(used.values())
        missed = Counter({name: n for name, n in used.items() if n and name not in self._counts[slot].routes})
        named = [{"route": name, "requests": n} for name, n in missed.most_common(NAMED_ROUTES)]
        return {
            "unexercised": named if total else None,
            "unexercised_share": sum(missed.values()) / total if total else None,
        }


class _Budget:
    """How many bytes may still be read, over all files."""

    def __init__(self, left: int) -> None:
        self.left = left


def lines_backwards(stream: BinaryIO, budget: _Budget) -> Iterator[bytes]:
    """The lines of a seekable ``stream`` from its end on, without line ends, while ``budget`` lasts."""
    position = stream.seek(0, os.SEEK_END)
    head = b""
    while position and budget.left > 0:
        step = min(BLOCK, position, budget.left)
        position -= step
        budget.left -= step
        stream.seek(position)
        lines = (stream.read(step) + head).split(b"\n")
        # The first piece may go on further up. What is longer than a line may be cannot be one of ours; it
        # is dropped with a mark, so that the rest of it is not taken for a whole line.
        head = lines[0] if len(lines[0]) <= MAX_LINE else b"\xff"
        yield from reversed(lines[1:])
    if position == 0:
        yield head


def _open_regular(path: str) -> Optional[BinaryIO]:
    """``path`` for reading, None when there is no such file. A pipe or device is refused, never waited on."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogError("log_unreadable", f"the access log {path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LogError("log_unreadable", f"the access log {path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_file(path: str, since: float, tally: Tally, max_bytes: int = MAX_BYTES) -> bool:
    """Count what ``path`` and its rotated predecessors ``path.1``, ``path.2`` ... hold from ``since`` on.

    Reads from the end backwards and stops where the window begins. A file renamed while this reads is
    recognised by its inode and read once. True when the log does not reach back to ``since`` for certain:
    the byte bound was hit, or all rotated files together are younger. Raises LogError.
    """
    budget = _Budget(max_bytes)
    seen: Set[Tuple[int, int]] = set()
    missing = 0
    for number in range(MAX_ROTATED):
        stream = _open_regular(path if number == 0 else f"{path}.{number}")
        if stream is None:
            missing += 1
            if missing == 2:
                break
            continue  # one number is free in the middle of a rotation
        with stream:
            status = os.fstat(stream.fileno())
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            for line in lines_backwards(stream, budget):
                request = parse_line(line)
                if request is None:
                    continue
                if request.end < since - SLACK_SECONDS:
                    return False
                tally.add(request)
        if budget.left <= 0:
            return True
    if not seen:
        raise LogError("log_missing", f"there is no access log at {path}")
    # One file alone is a proxy that has not run for long; several that are all younger have lost lines.
    return len(seen) > 1


class _Splitter:
    """Cuts blocks of output into lines."""

    def __init__(self) -> None:
        self._head = b""

    def feed(self, block: bytes) -> List[bytes]:
        """The lines that ``block`` completes."""
        lines = (self._head + block).split(b"\n")
        self._head = lines.pop()
        if len(self._head) > MAX_LINE:
            self._head = b"\xff"
        return lines


def _blocks(process: subprocess.Popen[bytes], deadline: float) -> Iterator[Tuple[bool, bytes]]:
    """What ``process`` prints, as (is standard output, block). Raises TimeoutError at ``deadline``."""
    with selectors.DefaultSelector() as waiting:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            left = deadline - time.monotonic()
            ready = waiting.select(left) if left > 0 else []
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                block = os.read(key.fd, BLOCK)
                if block:
                    yield key.fileobj is process.stdout, block
                else:
                    waiting.unregister(key.fileobj)


def _stream_lines(arguments: List[str], timeout: float, max_bytes: int) -> Iterator[bytes]:
    """Lines that a program prints to standard output, as it prints them.

    Raises LogTooLongError past ``max_bytes``, and LogError when the program is missing, fails, or is not done
    within ``timeout`` seconds. However it ends, the program is stopped.
    """
    deadline = time.monotonic() + timeout
    try:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise LogError("log_unreadable", f"{arguments[0]} cannot be run: {error.strerror}") from None
    splitter, errors, read = _Splitter(), b"", 0
    try:
        for is_output, block in _blocks(process, deadline):
            if not is_output:
                # The container's own error stream comes this way too, without end.
                errors = (errors + block)[-2000:]
                continue
            yield from splitter.feed(block)
            read += len(block)
            if read >= max_bytes:
                raise LogTooLongError("too_large", f"more than {max_bytes} bytes of log")
        yield from splitter.feed(b"\n")
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise LogError("timeout", f"{' '.join(arguments)} was not done within {timeout:g} s") from None
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if status != 0:
        said = errors.decode("utf-8", "replace").strip().splitlines() or [f"status {status}"]
        raise LogError("log_unreadable", f"{' '.join(arguments)} failed: {said[-1]}")


def read_docker(
    container: str,
    since: float,
    tally: Tally,
    timeout: float,
    *,
    max_bytes: int = MAX_BYTES,
    program: str = "docker",
) -> bool:
    """Count what ``docker logs`` shows of ``container`` from ``since`` on, standard output only.

    True when there was more than ``max_bytes`` of it; the newest part is then missing. Raises LogError.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", container):
        raise LogError("log_missing", f"{container!r} is no container name")
    arguments = [program, "logs", "--since", f"{max(0.0, since - SLACK_SECONDS):.3f}", container]
    try:
        for line in _stream_lines(arguments, timeout, max_bytes):
            request = parse_line(line)
            if request is not None:
                tally.add(request)
    except LogTooLongError:
        return True
    return False


def proxy_figures(
    log: Dict[str, Any],
    slots: List[Dict[str, Any]],
    since: float,
    until: float,
    exclude_paths: Sequence[str] = (),
    *,
    timeout: float = 30.0,
    own: str = "",
    seen_since: Optional[float] = None,
    marks: Optional[Tuple[str, str]] = None,
) -> Dict[str, Any]:
    """The proxy's figures of each slot for requests that ended after ``since``, up to ``until`` (unix s).

    ``log``: {"kind": "file", "path"} or {"kind": "docker", "container"}. ``own`` and ``seen_since``: see Tally.
    ``marks`` are what was written to the log before the window and after it, each empty where that failed. With them
    the log has to show that it reaches over the whole window. Answers {"slots": {slot: figures}}, see Tally.figures,
    or {"cause", "detail"} when the log cannot be read. Never raises for a log.
    """
    begin = since if seen_since is None else min(since, seen_since)
    limit = time.monotonic() + ARRIVAL_SECONDS
    while True:
        tally = Tally(slots, since, until, [*STANDARD_PATHS, *exclude_paths], own=own, seen_since=seen_since)
        try:
            if log["kind"] == "docker":
                truncated = read_docker(log["container"], begin, tally, timeout)
            else:
                truncated = read_file(log["path"], begin, tally)
        except LogError as problem:
            return {"cause": problem.cause, "detail": problem.detail}
        except OSError as error:
            return {"cause": "log_unreadable", "detail": f"the access log cannot be read: {error}"}
        if marks is None:
            return {"slots": tally.figures(truncated)}
        arrived = not marks[1] or marks[1] in tally.marks
        if arrived or time.monotonic() >= limit:
            reaches = tally.oldest < begin - REACH_SECONDS or (marks[0] != "" and marks[0] in tally.marks)
            # Of a container's log the newest part is missing where there is too much of it.
            too_long = truncated and log["kind"] == "docker"
            return {"slots": tally.figures(too_long or not (arrived and reaches))}
        time.sleep(ARRIVAL_PAUSE)

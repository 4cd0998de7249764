"""What is being done right now: lines that come and go on a terminal, a sign of life now and then in a log.

Knows nothing of Ansible. The callback plugin `swiftdeploy` tells `Progress` which host begins and ends which task; a
task that knows more of itself says so with `tell`, from the process that Ansible forked for it. On a terminal
`Progress` draws below what is printed, with rich, and takes its lines away before anything else is written (`Guard`)
and when a task ends. Elsewhere it prints a plain line for a task that takes long.

One thread draws. Ansible forks all the time, and a fork copies a lock as it is but not the thread that holds it: so
the only lock is taken before every fork and given back after it, and nobody prints while holding it. What is drawn
goes to a file of its own that no forked process writes to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live_render import LiveRender
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .display import duration
from .untrusted import clean

# Seconds of work after which a line is worth drawing, and between two drawings.
SHOWN_AFTER = 1.0
INTERVAL = 0.25
# Lines at most; the hosts beyond are counted.
ROWS = 8
BAR_WIDTH = 16
# Columns of a terminal from which there is room for a bar, and for a host's name.
BAR_FROM = 70
HOST_WIDTH = 24
# Seconds of work after which a log gets a line; then again each time the last one has passed.
STILL = (30, 60, 120, 300)
# Seconds between two lines of a log that tell the same task's own words.
DETAIL_EVERY = 15.0
# Told on one line of a log at most.
HOSTS_NAMED = 3
# A message is one write to a pipe: up to this many bytes are never mixed with another's.
MESSAGE = 4096

# Re-entrant: a signal handler of Ansible may print in the middle of it.
_LOCK = threading.RLock()
# Built-in methods: no interrupt can come between them and the fork.
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)

Words = Literal["", "of", "of at most"]


@dataclass(frozen=True)
class Bound:
    """How long a task may take: ``seconds``, as a window that it takes ("of") or a limit ("of at most")."""

    seconds: float
    words: Words = "of at most"


def bound(action: str, arguments: Mapping[str, Any], manifest: Mapping[str, Any]) -> Bound | None:
    """How long a task of ``action`` takes, where the manifest or the task says so.

    ``arguments`` are the task's as they are written, templates not yet filled in: only which of them are there
    counts, and numbers. ``manifest`` is the loaded one, or empty.
    """
    try:
        if action in ("swiftdeploy_metrics", "swiftdeploy_hold"):
            return Bound(float(manifest["canary"]["window_seconds"]), "of")
        if action == "swiftdeploy_slot" and "timeout" in arguments:
            return Bound(float(manifest["services"]["healthcheck"]["start_timeout"]))
        if action == "swiftdeploy_route" and "drain_timeout" in arguments:
            settles = float(manifest["services"]["healthcheck"]["settle"]) if "settle" in arguments else 0.0
            return Bound(max(float(manifest["nginx"]["drain_timeout"]), settles))
        if action == "swiftdeploy_await":
            return Bound(float(arguments["timeout"]))
    except (KeyError, TypeError, ValueError):
        return None
    return None


# ------------------------------------------------------------------------------------------------ told by tasks

_channel: tuple[int, int] | None = None


def open_channel() -> None:
    """Let tasks `tell`. To be called before anything forks; a second call changes nothing."""
    global _channel  # noqa: PLW0603 - a forked task finds it here
    if _channel is None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        _channel = (reader, writer)


def tell(host: str, text: str) -> bool:
    """Say in a few words how far the task of ``host`` is. False where nobody shows it: then print it."""
    if _channel is None:
        return False
    message = json.dumps([host, text]).encode() + b"\n"
    if len(message) <= MESSAGE:
        # A full pipe loses a word that the next one replaces anyway.
        with contextlib.suppress(OSError):
            os.write(_channel[1], message)
    return True


def _told() -> Iterator[tuple[str, str]]:
    if _channel is None:
        return
    while True:
        try:
            data = os.read(_channel[0], 65536)
        except OSError:
            return
        for line in data.splitlines():
            with contextlib.suppress(ValueError):
                host, text = json.loads(line)
                yield str(host), clean(text)


# ------------------------------------------------------------------------------------------------- who does what


@dataclass
class Work:
    """One host's task. ``said`` and ``still`` are for a log: the last words and when, and lines so far."""

    host: str
    words: str
    since: float
    bound: Bound | None
    detail: str = ""
    said: str = ""
    said_at: float = float("-inf")
    still: int = 0


class Board:
    """Who does what since when. Pure: time is given."""

    def __init__(self) -> None:
        self._work: dict[str, Work] = {}

    def start(self, host: str, words: str, limit: Bound | None, now: float) -> None:
        """A host begins a task; whatever it did before has ended."""
        self.end(host)
        self._work[host] = Work(host, words, now, limit)

    def end(self, host: str) -> None:
        """A host's task has ended."""
        self._work.pop(host, None)

    def clear(self) -> None:
        """Everything has ended."""
        self._work.clear()

    def detail(self, host: str, text: str) -> None:
        """A task says how far it is. Words of a task that has ended are dropped."""
        if host in self._work:
            self._work[host].detail = text

    def long(self, now: float) -> list[Work]:
        """What has taken long enough to be shown, in the order it began."""
        return [work for work in self._work.values() if now - work.since >= SHOWN_AFTER]

    def lines(self, now: float) -> list[str]:
        """What a log is to be told now; each line is answered once."""
        old = [work.host for work in self._work.values() if now - work.said_at >= DETAIL_EVERY]
        return [line for host in old for line in self.last(host, now)] + self._still(now)

    def last(self, host: str, now: float) -> list[str]:
        """What the task of a host said last, if that has not been answered yet."""
        work = self._work.get(host)
        if work is None or work.detail == work.said:
            return []
        work.said, work.said_at = work.detail, now
        return [f"  {host}  {work.detail}"]

    def _still(self, now: float) -> list[str]:
        """Tasks that have passed the next of their times; hosts at the same task share a line."""
        late: dict[tuple[str, int], list[str]] = {}
        for work in self._work.values():
            due = _still_at(work.still)
            # One that tells its own words shows that it lives.
            if not work.detail and now - work.since >= due:
                work.still += 1
                late.setdefault((work.words, due), []).append(work.host)
        return [f"still: {_named(hosts)}  {words}  {duration(due)}" for (words, due), hosts in late.items()]


def _still_at(count: int) -> int:
    """When the line after ``count`` of them is due, seconds."""
    return STILL[count] if count < len(STILL) else STILL[-1] * (count - len(STILL) + 2)


def _named(hosts: list[str]) -> str:
    more = len(hosts) - HOSTS_NAMED
    return ", ".join(hosts[:HOSTS_NAMED]) + (f" and {more} more" if more > 0 else "")


def timing(work: Work, now: float) -> str:
    """How long a task has taken, and of how much: ``12 s of at most 1 min 0 s``."""
    took = f"{duration(int(now - work.since))}"
    return took if work.bound is None else f"{took} {work.bound.words} {duration(int(work.bound.seconds))}"


def picture(works: list[Work], now: float, symbols: bool, width: int) -> RenderableType:
    """What is drawn for the tasks on ``width`` columns: a line each, bounded. Only the words are shortened."""
    shown = works[:ROWS]
    hosts = min(max(len(work.host) for work in shown), HOST_WIDTH)
    times = max(len(timing(work, now)) for work in shown)
    bars = BAR_WIDTH if width >= BAR_FROM and any(work.bound and not work.detail for work in shown) else 0
    # Between the columns, and the spinner's own.
    words = max(width - hosts - times - bars - 11, 8)
    spinner = Spinner("dots" if symbols else "line")
    spinner.start_time = 0.0
    overflow: Literal["crop", "ellipsis"] = "ellipsis" if symbols else "crop"
    grid = Table.grid(padding=(0, 2, 0, 0), collapse_padding=False)
    grid.add_column(width=1)
    grid.add_column(width=hosts, no_wrap=True, overflow=overflow)
    grid.add_column(max_width=words, no_wrap=True, overflow=overflow)
    if bars:
        grid.add_column(width=bars)
    grid.add_column(width=times, no_wrap=True)
    for work in shown:
        cells: list[RenderableType] = [Text(work.host), Text(work.detail or work.words)]
        if bars:
            cells.append(_bar(work, now, bars))
        grid.add_row(spinner.render(now), *cells, Text(timing(work, now)))
    more = len(works) - len(shown)
    if more > 0:
        grid.add_row("", "", Text(f"and {more} more host{'' if more == 1 else 's'}"))
    return grid


def _bar(work: Work, now: float, width: int) -> RenderableType:
    # Words of its own need the room, and tell the same.
    if work.bound is None or work.bound.seconds <= 0 or work.detail:
        return ""
    part = min(now - work.since, work.bound.seconds)
    return ProgressBar(total=work.bound.seconds, completed=part, width=width)


# ------------------------------------------------------------------------------------------------------ a terminal


class Painter:
    """Lines at the bottom of a terminal, written to a descriptor of its own. Not locked: `Progress` does that.

    The cursor is never hidden, so no end of the run, not even a kill, leaves a terminal without one.
    """

    def __init__(self, terminal: int, encoding: str, color: bool) -> None:
        self._handle = os.dup(terminal)
        # Line buffering would write a drawing in pieces.
        raw = io.FileIO(self._handle, "w", closefd=False)
        self._out = io.TextIOWrapper(io.BufferedWriter(raw, 1 << 16), encoding=encoding, errors="replace")
        self._console = Console(
            file=self._out, force_terminal=True, no_color=not color, highlight=False, markup=False, emoji=False
        )
        self._drawn: LiveRender | None = None

    def draw(self, works: list[Work], now: float, symbols: bool) -> None:
        """Replace what is drawn by a picture of ``works``."""
        try:
            if os.tcgetpgrp(self._handle) != os.getpgrp():
                # In the background the terminal belongs to somebody else.
                self._drawn = None
                return
        except OSError:
            pass
        before = self._drawn
        with contextlib.suppress(OSError, ValueError):
            self._resize()
        self._drawn = LiveRender(picture(works, now, symbols, self._console.width))
        # One write: a half drawing would flicker.
        with contextlib.suppress(OSError, ValueError), self._console:
            if before is not None:
                self._console.control(before.position_cursor())
            self._console.print(self._drawn, end="")

    def erase(self) -> None:
        """Take away what is drawn; the cursor is where it was before."""
        if self._drawn is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._console.control(self._drawn.position_cursor())
            self._out.flush()
        self._drawn = None

    def _resize(self) -> None:
        size = os.get_terminal_size(self._handle)
        # The last column stays free: some terminals wrap after it.
        self._console.size = ConsoleDimensions(max((size.columns or 80) - 1, 10), max((size.lines or 24) - 1, 2))


def terminal_width(stream: TextIO) -> int | None:
    """Columns of the terminal that ``stream`` writes to; None where it is none, or one that steers nothing."""
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return None
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return None


class Guard:
    """A text stream that has what `Progress` drew taken away before it writes. Everything else is the stream's own."""

    def __init__(self, stream: TextIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def write(self, text: str) -> int:
        """Write and flush."""
        with self._progress.apart(text.endswith("\n") or not text):
            count = self._stream.write(text)
            self._stream.flush()
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Progress:
    """Shows what is being done: on a terminal where there is a ``painter``, else by printing lines now and then.

    ``say`` prints a line. Hooks may be called from any thread. `stop` ends it for good.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        painter: Painter | None = None,
        symbols: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._painter = painter
        self._symbols = symbols
        self._clock = clock
        self._board = Board()
        self._apart = 0
        # A line that has been begun by somebody else must not be drawn over.
        self._at_start = True
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, host: str, words: str, limit: Bound | None = None) -> None:
        """A host begins a task."""
        with _LOCK:
            self._board.start(host, words, limit, self._clock())
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._run, name="swiftdeploy-progress", daemon=True)
            self._thread.start()

    def end(self, host: str) -> None:
        """A host's task has ended: its line goes, and what it said last is not lost to a log."""
        with _LOCK:
            self._listen()
            lines = [] if self._painter else self._board.last(host, self._clock())
            self._board.end(host)
            self._draw()
        self._print(lines)

    def clear(self) -> None:
        """Nothing is being done any more."""
        with _LOCK:
            self._listen()
            self._board.clear()
            self._draw()

    def stop(self) -> None:
        """Take everything away, for good."""
        self._ended.set()
        self.clear()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    @contextlib.contextmanager
    def apart(self, whole: bool = True) -> Iterator[None]:
        """Nothing is drawn inside. ``whole``: the line that is written there ends there."""
        # Not locked while somebody prints: printing takes a lock that a fork holds while it waits for ours.
        with _LOCK:
            self._apart += 1
            if self._painter:
                self._painter.erase()
        try:
            yield
        finally:
            with _LOCK:
                self._apart -= 1
                self._at_start = whole
                self._draw()

    def tick(self) -> None:
        """Bring what is shown up to date."""
        with _LOCK:
            self._listen()
            lines = [] if self._painter else self._board.lines(self._clock())
            self._draw()
        self._print(lines)

    def _listen(self) -> None:
        for host, text in _told():
            self._board.detail(host, text)

    def _draw(self) -> None:
        if self._painter is None or self._apart:
            return
        now = self._clock()
        works = self._board.long(now)
        if works and self._at_start and not self._ended.is_set():
            self._painter.draw(works, now, self._symbols)
        else:
            self._painter.erase()

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self._say(line)

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            self.tick()

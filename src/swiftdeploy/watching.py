"""What a run of status.yml shows, from the results of its hosts: a live dashboard, plain lines, one table, or JSON.

Lives in the main process of Ansible, which forks a worker for each task. So nothing here is buffered (a child would
write its copy once more), there is no thread, and a child that inherits the handlers of signals does nothing in them.
Results come from Ansible's thread of results and from its main thread, ticks from a timer in the main thread.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from rich.console import Console
from rich.live import Live

from swiftdeploy import dashboard, display, status, trend, untrusted

ACTION = "swiftdeploy_status"
# Seconds between two looks at whether the frame must be drawn anew; the clock in it goes on by itself.
TICK = 0.5
LONGEST_CLOCK = 1.0
SMALLEST = (20, 5)
KEPT_NOTES = 200
WAYS_ON = "go on: ansible-playbook status.yml  what happened: ansible-playbook audit.yml"

Handler = Callable[[int, FrameType | None], Any] | int | None


class Terminal(io.TextIOBase):
    """A stream without a buffer, so that no forked child has half a frame to write."""

    def __init__(self, handle: int, encoding: str) -> None:
        super().__init__()
        self._handle = handle
        self._encoding = encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._handle)

    def fileno(self) -> int:
        return self._handle

    def write(self, text: str) -> int:
        data = memoryview(text.encode(self._encoding, "replace"))
        while data:
            try:
                data = data[os.write(self._handle, data) :]
            except BlockingIOError:
                # Another program has made the terminal non-blocking.
                select.select([], [self._handle], [])
        return len(text)


class Notes(io.TextIOBase):
    """Stands in for stdout and stderr while the screen is taken, and keeps what is written there."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream
        self.texts: list[str] = []

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def write(self, text: str) -> int:
        self.texts.append(text)
        del self.texts[:-KEPT_NOTES]
        return len(text)

    def lines(self) -> list[str]:
        """What was written, by line."""
        return [line for line in "".join(self.texts).splitlines() if line.strip()]


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def can_live(stream: Any, environment: Mapping[str, str]) -> bool:
    """Whether a dashboard can be drawn on ``stream``."""
    try:
        return bool(stream.isatty()) and environment.get("TERM", "dumb") not in ("", "dumb", "unknown")
    except (AttributeError, ValueError):
        return False


class Watching:
    """Takes the results of the hosts and shows them as ``options`` says.

    ``options``: {"format": text or json, "once", "interval", "hosts": names, "history": path}. ``show(text)`` prints
    plain text. ``live``: the screen may be taken. ``stdout``: where JSON and the dashboard go.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        show: Callable[[str], None],
        *,
        live: bool,
        stdout: Any = None,
    ) -> None:
        self._options = options
        self._show = show
        self._stdout = stdout or sys.stdout
        self._symbols = display.can_show("✓✗" + trend.BARS, getattr(self._stdout, "encoding", None))
        self._json, self._once = options["format"] == "json", bool(options["once"])
        # Signals are for the main thread alone; elsewhere there are lines.
        main = threading.current_thread() is threading.main_thread()
        self._tty = can_live(self._stdout, os.environ) and live and main
        self._color = self._tty and not {"NO_COLOR", "ANSIBLE_NOCOLOR"} & {
            name for name, value in os.environ.items() if value
        }
        self._owner = os.getpid()
        self._views: dict[str, status.View] = {}
        self._refreshes = 0
        self._tail = trend.Tail(Path(options["history"]))
        self._trends = trend.Trends()
        self._trends.learn(self._tail.read())
        # Reentrant: an interrupted thread must be able to close what it was drawing.
        self._lock = threading.RLock()
        self._busy = self._dirty = self._ended = False
        self._drawn = self._pause = 0.0
        self._live: Live | None = None
        self._console: Console | None = None
        self._notes: list[Notes] = []
        self._previous: dict[int, Any] = {}
        if not self._once and main:
            self._on(signal.SIGINT, self._interrupted)
            self._on(signal.SIGTERM, self._terminated)
            # A closed terminal. Ansible's workers are in sessions of their own and would go on for ever.
            self._on(signal.SIGHUP, self._terminated)
            if self._tty and not self._json:
                self._open()

    # --- results

    def take(self, host: str, action: str, data: Mapping[str, Any]) -> bool:
        """Take the result of a task; whether it was a refresh of the status."""
        if action != ACTION or "swiftdeploy_watch" in data:
            return False
        view = data.get(ACTION)
        if not isinstance(view, Mapping):
            if not data.get("failed"):
                return False
            if host in self._views and self._once:
                return True
            why = "; ".join(display.failure_lines(data, "show the status"))
            view = status.unanswered(host, status.now(), None, why)
        with self._lock:
            self._busy = True
            try:
                self._learn(host, untrusted.cleaned(view), data.get("swiftdeploy_event"))
            finally:
                self._busy = False
        self._tell(host)
        return True

    def _learn(self, host: str, view: status.View, event: Any) -> None:
        if isinstance(event, Mapping):
            self._trends.learn([event])
        if view["unanswered"]:
            before = (self._views.get(host) or {}).get("unanswered")
            since = before["since"] if before else self._trends.silent_since(host, view["service"])
            view["unanswered"] = {**view["unanswered"], "since": since or view["at"]}
        self._views[host] = view
        self._refreshes += 1

    def _tell(self, host: str) -> None:
        # What still comes after Ctrl-C is recorded, so lines tell of it too.
        if self._once or (self._ended and self._console is not None):
            return
        if self._json:
            self._print(json.dumps({"schema": status.SCHEMA, **self._views[host]}))
        elif self._live is not None:
            self._dirty = True
            self._redraw()
        else:
            # A person in front of a log reads every refresh; last events would come again with each.
            look = dashboard.Look([self._views[host]], self._trends, time.time(), self._views[host]["at"])
            look.quiet = True
            self._show(dashboard.text(look, symbols=self._symbols))

    def finish(self) -> None:
        """The run is over: what was asked for once is shown, the screen is given back."""
        self.close()
        if not self._once or self._ended:
            return
        self._ended = True
        for host in self._options["hosts"]:
            missing = "its run ended before it was looked at; the messages say why"
            self._views.setdefault(host, status.unanswered(host, status.now(), None, missing))
        if self._json:
            self._print(json.dumps(status.document(self._views.values(), status.now())))
            return
        width = self._size()[0] if self._tty else dashboard.PLAIN_WIDTH
        self._trends.learn(self._tail.read())
        self._show(
            dashboard.text(self._look(""), symbols=self._symbols, color=self._color, width=width, wrapped=self._tty)
        )

    def _print(self, text: str) -> None:
        """A line of JSON; at once and unbuffered where stdout is a file of the system."""
        try:
            self._stdout.flush()
            handle = self._stdout.fileno()
        except (OSError, ValueError):
            self._stdout.write(text + "\n")
            return
        with contextlib.suppress(BrokenPipeError):
            Terminal(handle, "utf-8").write(text + "\n")

    # --- the screen

    def _size(self) -> tuple[int, int]:
        try:
            found = os.get_terminal_size(
                self._stdout.fileno() if self._console is None else self._console.file.fileno()
            )
        except (OSError, ValueError):
            return 80, 24
        return max(SMALLEST[0], found.columns), max(SMALLEST[1], found.lines)

    def _open(self) -> None:
        self._stdout.flush()
        encoding = getattr(self._stdout, "encoding", None) or "ascii"
        stream = Terminal(os.dup(self._stdout.fileno()), encoding)
        self._console = Console(
            file=cast(IO[str], stream),
            force_terminal=True,
            force_interactive=True,
            no_color=None if self._color else True,
            highlight=False,
            emoji=False,
            markup=False,
        )
        self._on(signal.SIGTSTP, self._suspended)
        self._on(signal.SIGWINCH, self._ticked)
        self._on(signal.SIGALRM, self._ticked)
        # Ansible writes warnings whenever it likes.
        self._notes = [Notes(sys.stdout), Notes(sys.stderr)]
        sys.stdout, sys.stderr = self._notes
        self._enter()
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)

    def _enter(self) -> None:
        assert self._console is not None  # noqa: S101 - for the types
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        self._dirty = True
        self._redraw(force=True)

    def close(self, last: str = "") -> None:
        """Give the screen back, with the last frame on it and what Ansible had to say."""
        if os.getpid() != self._owner or self._live is None or self._console is None:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Another thread may be drawing; it is done in a moment, and the lock is reentrant for this one.
        held = self._lock.acquire(timeout=2.0)
        try:
            live, self._live = self._live, None
            stand_ins, self._notes = self._notes, []
            # A terminal that is gone, or a frame that cannot be drawn: what comes next matters more.
            with contextlib.suppress(Exception):
                live.stop()
                width, height = self._size()
                self._console.size = (width, height)
                # What Ansible had to say comes below it, and then the prompt.
                self._console.print(self._frame(self._console, width, height - 3, "", fill=False))
        finally:
            if held:
                self._lock.release()
        for stand_in, name in zip(stand_ins, ("stdout", "stderr"), strict=False):
            setattr(sys, name, stand_in.stream)
            with contextlib.suppress(OSError, ValueError):
                stand_in.stream.write("".join(stand_in.texts))
                stand_in.stream.flush()
        if last:
            with contextlib.suppress(OSError):
                self._console.print(last, style="bold", soft_wrap=True)

    def _look(self, footer: str) -> dashboard.Look:
        now = time.time()
        hosts = [*self._options["hosts"], *(host for host in self._views if host not in self._options["hosts"])]
        views = [self._views.get(host) or status.waiting(host) for host in hosts]
        notes = [line for stand_in in self._notes for line in stand_in.lines()]
        stamp = datetime.fromtimestamp(now, UTC).strftime("%H:%M:%S UTC")
        stale = max(30.0, 4.0 * float(self._options["interval"]))
        for view in views:
            at = trend.seconds(view["at"])
            if not self._once and at is not None and now - at > stale:
                notes.append(f"{view['host']}: the last refresh was {dashboard.age(now - at)} ago")
        return dashboard.Look(views, self._trends, now, stamp, footer, notes)

    def _frame(self, console: Console, width: int, height: int, footer: str, *, fill: bool) -> dashboard.Frame:
        self._trends.learn(self._tail.read())
        drawn = dashboard.frame(self._look(footer), console, width, height, fill=fill)
        return drawn if self._symbols else dashboard.in_ascii(drawn)

    def _redraw(self, force: bool = False) -> None:
        """Draw, unless a frame is being drawn or the last one is too young for what a frame costs."""
        now = time.monotonic()
        if not force and now - self._drawn < self._pause:
            return
        if not self._lock.acquire(blocking=False):
            return
        # The timer may have interrupted the very thread that draws, and then the lock lets it in.
        if self._busy or self._live is None or self._console is None:
            self._lock.release()
            return
        try:
            self._busy = True
            self._dirty = False
            width, height = self._size()
            self._console.size = (width, height)
            footer = f"every {self._options['interval']} s, each refresh is recorded; Ctrl-C ends"
            self._live.update(self._frame(self._console, width, height, footer, fill=True), refresh=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on in plain lines
            self._busy = False
            self.close()
            with contextlib.suppress(OSError):
                self._show(f"the dashboard cannot be drawn ({type(error).__name__}: {error}); going on in plain lines")
        finally:
            self._busy = False
            self._drawn = time.monotonic()
            # A frame of many hosts must not keep Ansible from its results.
            self._pause = max(0.1, 5 * (self._drawn - now))
            self._lock.release()

    # --- signals

    def _on(self, number: int, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._previous[number] = signal.signal(number, handler)

    def _before(self, number: int, frame: FrameType | None) -> None:
        """What the signal would have done without us."""
        previous: Handler = self._previous.get(number)
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _ticked(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        if self._dirty or number == signal.SIGWINCH or time.monotonic() - self._drawn >= LONGEST_CLOCK:
            self._redraw(force=number == signal.SIGWINCH)

    def _suspended(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner or self._live is None:
            return
        self._live.stop()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Here again after fg.
        signal.signal(number, self._suspended)
        self._enter()

    def _terminated(self, _number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._owner:
            self._ended = True
            self.close()
        # Ansible's own handler tells its workers.
        self._before(signal.SIGTERM, frame)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C is how this ends: not a failure."""
        if os.getpid() != self._owner:
            self._before(number, frame)
            return
        self._ended = True
        answered = sum(view["answered"] for view in self._views.values())
        words = (
            f"Ended after {_count(self._refreshes, 'refresh', 'es')} of {_count(len(self._views), 'host')}, "
            f"{answered} answer{'s' if answered == 1 else ''}; "
        )
        screen = self._live is not None
        self.close(words + WAYS_ON)
        if not screen and not self._json:
            self._show(words + WAYS_ON)
        # Another Ctrl-C ends at once, as with Ansible's own handler. That one is not asked: it kills the workers first,
        # and one that is killed while it hands over a result keeps the lock for which Ansible then waits for ever.
        # Leaving in order ends them too, after the last result was taken.
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(0)


def wants_stdout(extra: Mapping[str, Any], roles: Sequence[str]) -> bool:
    """Whether nothing but JSON may be on stdout, known before any task has run."""
    return "status" in roles and str(extra.get("format")) == "json"

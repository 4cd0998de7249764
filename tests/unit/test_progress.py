"""What is shown while something is being done: on a terminal, and in a log."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest

from support.workspace import wait_until
from swiftdeploy import progress
from swiftdeploy.progress import Board, Bound, Guard, Painter, Progress, bound

MANIFEST: dict[str, Any] = {
    "canary": {"window_seconds": 30},
    "services": {"healthcheck": {"start_timeout": 60.0}},
    "nginx": {"drain_timeout": 65},
}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Glass:
    """A terminal of our own, seen as a person sees it."""

    def __init__(self, columns: int = 90) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (24, columns))
        self.raw = b""
        self._screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self._screen)
        os.set_blocking(self.master, False)

    def file(self) -> io.TextIOWrapper:
        return os.fdopen(os.dup(self.slave), "w", encoding="utf-8")

    def lines(self) -> list[str]:
        """What stands on the screen now."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except BlockingIOError:
                break
            self.raw += data
            self._stream.feed(data)
        return [line.rstrip() for line in self._screen.display if line.strip()]


@pytest.fixture
def glass() -> Iterator[Glass]:
    made = Glass()
    yield made
    os.close(made.master)
    os.close(made.slave)


@contextmanager
def shown(glass: Glass, clock: Clock, encoding: str = "utf-8") -> Iterator[Progress]:
    """A progress without its thread: a test says when it draws."""
    painter = Painter(glass.slave, encoding, color=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "_run", lambda _self: None)
        yield Progress(lambda line: None, painter, symbols=encoding == "utf-8", clock=clock)


# ------------------------------------------------------------------------------------------------- a terminal


def test_only_what_takes_longer_is_shown_and_goes_when_it_ends(glass: Glass) -> None:
    clock = Clock()
    with shown(glass, clock) as shower:
        shower.start("web1", "Get OPA")
        shower.tick()
        assert glass.lines() == []
        clock.now += 12
        shower.start("web2", "Wait until it is healthy", Bound(60))
        clock.now += 2
        shower.tick()
        first, second = glass.lines()
        assert first.split()[1:] == ["web1", "Get", "OPA", "14", "s"]
        assert second.split()[1:7] == ["web2", "Wait", "until", "it", "is", "healthy"]
        assert second.endswith("2 s of at most 1 min")
        shower.end("web1")
        (only,) = glass.lines()
        assert "web2" in only
        shower.end("web2")
        assert glass.lines() == []


def test_what_is_printed_stays_above_and_no_half_line_is_drawn_over(glass: Glass) -> None:
    clock = Clock()
    with shown(glass, clock) as shower:
        out = Guard(glass.file(), shower)
        shower.start("web1", "Get OPA")
        clock.now += 2
        shower.tick()
        for number in range(30):
            out.write(f"line {number}\n")
        assert glass.lines()[-2] == "line 29"
        assert "Get OPA" in glass.lines()[-1]
        out.write("a question: ")
        shower.tick()
        assert glass.lines()[-1] == "a question:"
        out.write("answered\n")
        assert glass.lines()[-2] == "a question: answered"
        shower.stop()
        assert glass.lines()[-1] == "a question: answered"
        assert out.encoding == "utf-8"
        assert out.isatty()


def test_the_cursor_is_never_hidden(glass: Glass) -> None:
    clock = Clock()
    with shown(glass, clock) as shower:
        shower.start("web1", "Get OPA", Bound(3, "of"))
        clock.now += 2
        shower.tick()
        shower.stop()
    glass.lines()
    assert b"web1" in glass.raw
    assert b"\x1b[?25l" not in glass.raw


def test_many_hosts_are_bounded_and_long_words_cut_at_the_edge(glass: Glass) -> None:
    clock = Clock()
    with shown(glass, clock) as shower:
        for number in range(20):
            shower.start(f"a-host-with-a-very-long-name-{number}", "words " * 40, Bound(60))
        clock.now += 5
        shower.tick()
        lines = glass.lines()
        assert len(lines) == progress.ROWS + 1
        assert lines[-1].strip() == "and 12 more hosts"
        assert all(line.endswith("5 s of at most 1 min") for line in lines[:-1])
        assert all(len(line) < 90 for line in lines)


def test_an_output_that_has_no_symbols_gets_none(glass: Glass) -> None:
    clock = Clock()
    with shown(glass, clock, "ascii") as shower:
        shower.start("web1", "words " * 40, Bound(60))
        clock.now += 50
        shower.tick()
        (line,) = glass.lines()
        assert line.isascii()
        assert "?" not in line
        assert "------" in line


def test_words_of_a_task_stand_in_place_of_its_name(glass: Glass) -> None:
    clock = Clock()
    progress.open_channel()
    with shown(glass, clock) as shower:
        shower.start("web1", "Hold the weight")
        clock.now += 3
        assert progress.tell("web1", "step 1/3  5 %")
        assert progress.tell("web2", "of a task that has ended")
        assert progress.tell("web1", "step 2/3  \x1b[2J25 %")
        shower.tick()
        (line,) = glass.lines()
        assert "step 2/3  25 %" in line


def test_a_full_channel_stops_nobody() -> None:
    progress.open_channel()
    assert all(progress.tell("web1", "x" * 1000) for _number in range(200))
    shower = Progress(lambda line: None)
    shower.clear()


def test_without_a_channel_the_task_is_told_to_print_itself() -> None:
    code = "from swiftdeploy import progress; print(progress.tell('web1', 'x'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_file_is_no_terminal_and_a_dumb_one_is_none_either(
    tmp_path: Path, glass: Glass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "log").open("w") as file:
        assert progress.terminal_width(file) is None
    with glass.file() as file:
        assert progress.terminal_width(file) == 90
        monkeypatch.setenv("TERM", "dumb")
        assert progress.terminal_width(file) is None


def test_forks_while_it_is_drawn_neither_hang_nor_draw(glass: Glass) -> None:
    """Another thread draws all the time; every child can use what the parent's thread may be holding."""
    stop = threading.Event()
    shower = Progress(lambda line: None, Painter(glass.slave, "utf-8", color=False), clock=Clock())
    clock = Clock()
    shower._clock = clock

    def draw() -> None:
        while not stop.is_set():
            clock.now += 1
            shower.tick()
            glass.lines()

    shower.start("web1", "Get OPA")
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _number in range(100):
            child = os.fork()
            if child == 0:
                # A child that hangs here would never be waited for.
                free = progress._LOCK.acquire(timeout=10)
                os._exit(0 if free else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
        shower.stop()
    assert glass.lines() == []


# ------------------------------------------------------------------------------------------------------ a log


def test_a_log_shows_life_at_growing_intervals() -> None:
    board = Board()
    board.start("web1", "Get OPA", None, 0.0)
    told = {second: board.lines(float(second)) for second in range(1300)}
    assert {second: lines for second, lines in told.items() if lines} == {
        30: ["still: web1  Get OPA  30 s"],
        60: ["still: web1  Get OPA  1 min"],
        120: ["still: web1  Get OPA  2 min"],
        300: ["still: web1  Get OPA  5 min"],
        600: ["still: web1  Get OPA  10 min"],
        900: ["still: web1  Get OPA  15 min"],
        1200: ["still: web1  Get OPA  20 min"],
    }


def test_hosts_at_the_same_task_share_a_line() -> None:
    board = Board()
    for number in range(1, 6):
        board.start(f"web{number}", "Get OPA", None, 0.0)
    board.start("web1", "Start it", None, 1.0)
    board.end("web2")
    assert board.lines(31.0) == ["still: web3, web4, web5  Get OPA  30 s", "still: web1  Start it  30 s"]
    board.start("web9", "Get OPA", None, 0.0)
    board.start("web8", "Get OPA", None, 0.0)
    board.start("web7", "Get OPA", None, 0.0)
    board.start("web6", "Get OPA", None, 0.0)
    assert board.lines(32.0) == ["still: web9, web8, web7 and 1 more  Get OPA  30 s"]
    board.clear()
    assert board.lines(1000.0) == []


def test_a_task_that_tells_how_far_it_is_is_told_now_and_then_and_at_its_end() -> None:
    progress.open_channel()
    clock = Clock()
    said: list[str] = []
    shower = Progress(said.append, None, clock=clock)
    shower.clear()
    shower._ended.set()
    shower.start("web1", "Hold")
    for number in range(20):
        progress.tell("web1", f"look {number}")
        clock.now += 3
        shower.tick()
    assert said == ["  web1  look 0", "  web1  look 5", "  web1  look 10", "  web1  look 15"]
    shower.end("web1")
    assert said[4:] == ["  web1  look 19"]
    shower.end("web1")
    shower.start("web2", "Hold")
    progress.tell("web2", "only once")
    shower.end("web2")
    shower.start("web3", "Hold")
    shower.end("web3")
    assert said[5:] == ["  web2  only once"]


def test_the_sign_of_life_comes_by_itself() -> None:
    clock = Clock()
    said: list[str] = []
    shower = Progress(said.append, None, clock=clock)
    shower.start("web1", "Get OPA")
    clock.now += 31
    try:
        wait_until(lambda: said, "a line")
    finally:
        shower.stop()
    assert said == ["still: web1  Get OPA  30 s"]


# ----------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    ("action", "arguments", "found"),
    [
        ("swiftdeploy_metrics", {}, Bound(30, "of")),
        ("swiftdeploy_hold", {}, Bound(30, "of")),
        ("swiftdeploy_slot", {"timeout": "{{ a template }}"}, Bound(60)),
        ("swiftdeploy_slot", {"state": "stopped"}, None),
        ("swiftdeploy_route", {"drain_timeout": "{{ a template }}"}, Bound(65)),
        ("swiftdeploy_await", {"timeout": 20}, Bound(20)),
        ("swiftdeploy_await", {"timeout": "{{ a template }}"}, None),
        ("ansible.builtin.command", {}, None),
    ],
)
def test_how_long_a_task_may_take(action: str, arguments: dict[str, Any], found: Bound | None) -> None:
    assert bound(action, arguments, MANIFEST) == found


def test_before_the_manifest_is_loaded_nothing_is_known() -> None:
    assert bound("swiftdeploy_metrics", {}, {}) is None
